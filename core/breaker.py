"""A circuit breaker: after too many failures nothing is called for a while, then one call at a time tries again.

closed ──too many failures──▶ open ──`open_us` later──▶ half-open ──`trials` good calls──▶ closed
                                ▲────────────a failed call───┘

A pure state machine. The library purgatory was looked at and does not fit: it counts failures in a row only, reads the clock itself,
and takes the exception that leaves a `with` block for the end of a call, where here a call ends with its stream and its verdict
depends on an error's code. Times are microseconds since 1970.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

State = Literal["closed", "half_open", "open"]
Verdict = Literal["good", "bad", "neither"]

#: The provider did not do its work.
BAD = frozenset({"provider_unavailable", "provider_timeout", "provider_connection", "provider_bad_answer"})
#: The provider did its work, and what it said is about the request.
GOOD = frozenset({
    "provider_invalid_request", "provider_context_too_long", "provider_unknown_model", "provider_content_refused",
    "provider_schema_mismatch",
})  # fmt: skip
SLOTS = 10


def verdict(error_code: str | None, cut_short: bool = False) -> Verdict:
    """What the end of a call says about its provider; `error_code` is None for an answer.

    A rate limit says neither: the deployment rests instead. So does a refused key, and a time-out that the request's own
    deadline made (`cut_short`), or one impatient caller would take a provider from all.
    """
    if error_code is None or error_code in GOOD:
        return "good"
    if error_code == "provider_timeout" and cut_short:
        return "neither"
    return "bad" if error_code in BAD else "neither"


@dataclass(frozen=True, slots=True)
class BreakerRule:
    """When a breaker opens: after so many failures in a row, or at this share of at least `least_calls` within the window.

    It stays open for `open_us`, then lets one call through at a time and closes after `trials` good ones. A trial of which
    nothing was heard for `trial_us` counts as gone, as when its worker died or it was cancelled.
    """

    failures_in_a_row: int = 5
    failure_ratio: float = 0.5
    least_calls: int = 20
    window_us: int = 60_000_000
    open_us: int = 30_000_000
    trials: int = 1
    trial_us: int = 60_000_000


@dataclass(frozen=True, slots=True)
class Slot:
    """The good and the bad calls of a tenth of the window, by the number of that tenth since 1970."""

    number: int
    good: int
    bad: int


@dataclass(frozen=True, slots=True)
class Breaker:
    """A breaker as it stands; a new one is closed."""

    failures_in_a_row: int = 0
    slots: tuple[Slot, ...] = ()
    opened_at: int | None = None
    #: Since it was opened: when the latest trial began, None when none is under way, and how many were good.
    trial_at: int | None = None
    good_trials: int = 0


CLOSED = Breaker()


def state_of(breaker: Breaker, rule: BreakerRule, now: int) -> State:
    """Whether calls may be made: all, one at a time, or none."""
    if breaker.opened_at is None:
        return "closed"
    return "open" if now < breaker.opened_at + rule.open_us else "half_open"


def open_until(breaker: Breaker, rule: BreakerRule) -> int | None:
    """Until when no call may be made, None for a closed one."""
    return None if breaker.opened_at is None else breaker.opened_at + rule.open_us


def trial_until(breaker: Breaker, rule: BreakerRule) -> int | None:
    """Until when a trial that is under way counts as that, None where none is."""
    return None if breaker.trial_at is None else breaker.trial_at + rule.trial_us


def begin(breaker: Breaker, rule: BreakerRule, now: int) -> Breaker | None:
    """The breaker with a call begun, None where none may begin."""
    state = state_of(breaker, rule, now)
    if state == "closed":
        return breaker
    if state == "open" or now < (trial_until(breaker, rule) or 0):
        return None
    return replace(breaker, trial_at=now)


def end(breaker: Breaker, rule: BreakerRule, said: Verdict, started_at: int, now: int) -> Breaker:
    """The breaker after a call that started then has ended: its answer, its stream or its failure was complete.

    Of calls from before a breaker opened nothing is learned about the time since.
    """
    if breaker.opened_at is not None:
        return _tried(breaker, rule, said, started_at, now)
    if said == "neither":
        return breaker
    bad = said == "bad"
    in_a_row = breaker.failures_in_a_row + 1 if bad else 0
    slots = _counted(breaker.slots, rule, bad, now)
    failed, calls = sum(slot.bad for slot in slots), sum(slot.good + slot.bad for slot in slots)
    too_many = calls >= rule.least_calls and failed >= calls * rule.failure_ratio
    if bad and (in_a_row >= rule.failures_in_a_row or too_many):
        return Breaker(opened_at=now)
    return Breaker(in_a_row, slots)


def _tried(breaker: Breaker, rule: BreakerRule, said: Verdict, started_at: int, now: int) -> Breaker:
    if started_at < (breaker.opened_at or 0) + rule.open_us:
        return breaker
    if said == "bad":
        return Breaker(opened_at=now)
    good = breaker.good_trials + (said == "good")
    return CLOSED if good >= rule.trials else replace(breaker, trial_at=None, good_trials=good)


def _counted(slots: tuple[Slot, ...], rule: BreakerRule, bad: bool, now: int) -> tuple[Slot, ...]:
    """The window's slots with one more call; older ones leave."""
    number = now * SLOTS // rule.window_us
    kept = tuple(slot for slot in slots if slot.number > number - SLOTS)
    # Clocks are set back at times; a call then counts in the latest slot.
    last = kept[-1] if kept and kept[-1].number >= number else Slot(number, 0, 0)
    return (*(slot for slot in kept if slot is not last), Slot(last.number, last.good + (not bad), last.bad + bad))
