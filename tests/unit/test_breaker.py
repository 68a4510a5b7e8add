"""The circuit breaker: when it opens, what it lets through, when it closes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from core.breaker import CLOSED, Breaker, BreakerRule, Verdict, begin, end, open_until, state_of, verdict
from core.errors import CODES

SECOND = 1_000_000
NOW = 1_795_258_680_000_000
RULE = BreakerRule()


def after(*said: Verdict, at: int = NOW, rule: BreakerRule = RULE) -> Breaker:
    """A new breaker after calls with these verdicts, a millisecond apart."""
    breaker = CLOSED
    for number, one in enumerate(said):
        breaker = end(breaker, rule, one, at + number * 1_000, at + number * 1_000)
    return breaker


def test_failures_in_a_row_open_it_and_one_good_call_between_does_not() -> None:
    """Five in a row open, four, a good one and four more do not."""
    assert state_of(after(*["bad"] * 5), RULE, NOW) == "open"
    assert state_of(after(*["bad"] * 4, "good", *["bad"] * 4), RULE, NOW) == "closed"
    assert state_of(after(*["bad"] * 4, "neither", "bad"), RULE, NOW) == "open"


def test_a_share_of_failures_opens_it_once_there_are_enough_calls() -> None:
    """Every second call fails: closed up to the 19th call, open with the 20th, which is bad."""
    mixed: list[Verdict] = ["good", "bad"] * 10
    assert state_of(after(*mixed[:19]), RULE, NOW) == "closed"
    assert state_of(after(*mixed), RULE, NOW) == "open"
    rarely: list[Verdict] = ["good", "good", "bad"] * 30
    assert state_of(after(*rarely), RULE, NOW) == "closed"


def test_failures_are_forgotten_after_the_window() -> None:
    """Nineteen mixed calls a window ago do not count together with today's."""
    breaker = after(*["good", "bad"] * 9, "good")
    later = NOW + RULE.window_us + RULE.window_us // 10
    assert state_of(end(breaker, RULE, "bad", later, later), RULE, later) == "closed"


def test_it_opens_for_its_time_then_tries_one_call_at_a_time() -> None:
    """No call for 30 s, then one; the next waits for its end, or for the time after which a trial counts as gone."""
    opened = after(*["bad"] * 5, at=NOW - 4_000)
    until = open_until(opened, RULE)
    assert until == NOW + RULE.open_us
    assert begin(opened, RULE, until - 1) is None
    trying = begin(opened, RULE, until)
    assert trying is not None
    assert state_of(trying, RULE, until) == "half_open"
    assert begin(trying, RULE, until + RULE.trial_us - 1) is None
    assert begin(trying, RULE, until + RULE.trial_us) is not None


def test_a_good_trial_closes_it_and_a_bad_one_opens_it_again() -> None:
    """The trial decides; one that says neither leaves room for the next."""
    opened = after(*["bad"] * 5, at=NOW - 4_000)
    at = NOW + RULE.open_us
    trying = begin(opened, RULE, at)
    assert trying is not None
    assert end(trying, RULE, "good", at, at + SECOND) == CLOSED
    again = end(trying, RULE, "bad", at, at + SECOND)
    assert open_until(again, RULE) == at + SECOND + RULE.open_us
    limited = end(trying, RULE, "neither", at, at + SECOND)
    assert state_of(limited, RULE, at + SECOND) == "half_open"
    assert begin(limited, RULE, at + SECOND) is not None


def test_calls_from_before_it_opened_say_nothing_about_the_time_since() -> None:
    """A long stream that ends well, or badly, after the breaker opened neither closes it nor keeps it open."""
    opened = after(*["bad"] * 5, at=NOW - 4_000)
    for said in ("good", "bad"):
        for at in (NOW + 1, NOW + RULE.open_us + SECOND):
            assert end(opened, RULE, said, NOW - SECOND, at) == opened


def test_several_good_trials_may_be_asked_for() -> None:
    """With three trials the third good one closes it, and a bad one between starts over."""
    three = BreakerRule(trials=3)
    breaker = after(*["bad"] * 5, at=NOW - 4_000, rule=three)
    at = NOW + three.open_us
    for number in range(3):
        assert breaker != CLOSED
        begun = begin(breaker, three, at + number)
        assert begun is not None
        breaker = end(begun, three, "good", at + number, at + number)
    assert breaker == CLOSED


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (None, "good"), ("provider_unavailable", "bad"), ("provider_timeout", "bad"), ("provider_connection", "bad"),
        ("provider_bad_answer", "bad"), ("provider_rate_limited", "neither"), ("provider_auth", "neither"),
        ("provider_invalid_request", "good"), ("provider_content_refused", "good"), ("pipeline_internal", "neither"),
    ],
)  # fmt: skip
def test_what_each_end_of_a_call_says(code: str | None, said: Verdict) -> None:
    """Only a provider that did not do its work is held against it."""
    assert code is None or code in CODES
    assert verdict(code) == said


def test_a_callers_own_deadline_is_not_held_against_the_provider() -> None:
    """A time-out that the request's deadline made says neither; every other failure says what it says."""
    assert verdict("provider_timeout", cut_short=True) == "neither"
    assert verdict("provider_unavailable", cut_short=True) == "bad"


verdicts = st.sampled_from(["good", "bad", "neither"])


class Machine(RuleBasedStateMachine):
    """A breaker under calls that begin, last and end in any order while the clock goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.rule = BreakerRule(3, 0.5, 8, 10 * SECOND, 5 * SECOND, 2, 7 * SECOND)
        self.breaker, self.now = CLOSED, NOW
        self.running: list[int] = []

    @rule(seconds=st.floats(0, 8))
    def wait(self, seconds: float) -> None:
        """Time goes by."""
        self.now += int(seconds * SECOND)

    @rule()
    def call(self) -> None:
        """A call wants to begin."""
        state = state_of(self.breaker, self.rule, self.now)
        begun = begin(self.breaker, self.rule, self.now)
        assert (state == "closed") <= (begun is not None)
        assert (state == "open") <= (begun is None)
        if begun is not None:
            self.breaker = begun
            self.running.append(self.now)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), said=verdicts)
    def finish(self, data: st.DataObject, said: Verdict) -> None:
        """One of the running calls ends."""
        started = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        before, state = self.breaker, state_of(self.breaker, self.rule, self.now)
        self.breaker = end(self.breaker, self.rule, said, started, self.now)
        changed = state_of(self.breaker, self.rule, self.now) != state
        # Each change has its one cause: a bad call opens, a good trial closes.
        if changed and self.breaker.opened_at is not None:
            assert said == "bad"
        if changed and self.breaker.opened_at is None:
            assert said == "good" and state == "half_open" and started >= (before.opened_at or 0) + self.rule.open_us

    @invariant()
    def stays_small(self) -> None:
        """However many calls there were, the window has its ten slots."""
        assert len(self.breaker.slots) <= 10


TestMachine = Machine.TestCase


@given(st.lists(st.tuples(verdicts, st.integers(0, 40 * SECOND)), max_size=60))
def test_it_comes_back_from_any_history(history: list[tuple[Verdict, int]]) -> None:
    """Whatever happened, a provider that answers again has its breaker closed after the open time and good calls."""
    breaker, now = CLOSED, NOW
    for said, pause in history:
        now += pause
        begun = begin(breaker, RULE, now)
        if begun is not None:
            breaker = end(begun, RULE, said, now, now)
    now += RULE.open_us + RULE.trial_us
    begun = begin(breaker, RULE, now)
    assert begun is not None
    assert state_of(end(begun, RULE, "good", now, now), RULE, now) == "closed"
