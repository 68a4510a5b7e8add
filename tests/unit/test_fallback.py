"""What follows a failed call: the same model again, the next candidate, or the end."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import CODES, error
from core.fallback import (
    FALLS_BACK,
    Again,
    Next,
    Tried,
    after_lost,
    at_candidate,
    next_candidate,
    next_move,
    tried_so_far,
)
from core.retry import RetryRule
from schemas.events import Candidate, LlmCall
from tests.examples import NOON, call

RULE = RetryRule(2, 0.5, 30.0)
ONCE = Tried(1, 1, 0)


def candidate(model: str, bound: int | None = 1_000) -> Candidate:
    provider, _, name = model.partition("/")
    return Candidate(provider=provider, model=name, max_output_tokens=100, reserved_nano_usd=bound)


THREE = [candidate("openai/gpt-5"), candidate("anthropic/claude-haiku-4-5", 3_000), candidate("echo/echo", None)]


def routed(candidates: list[Candidate] = THREE, fall_back_on: tuple[str, ...] = (), **changes: Any) -> LlmCall:
    return at_candidate({**call(**changes), "candidates": candidates, "fall_back_on": list(fall_back_on)}, 0)


def move(code: str, tried: Tried = ONCE, to: LlmCall | None = None, wait: int | None = None) -> Any:
    return next_move(RULE, to or routed(), error(code, "No.", retry_after_ms=wait), tried, NOON, 0.5)


def test_a_model_is_called_again_before_the_next_one_is() -> None:
    """The rule's calls are for each candidate; after them the next one has its turn, and after the last the failure stands."""
    assert move("provider_unavailable") == Again(0.25)
    assert move("provider_unavailable", Tried(2, 2, 0)) == Next(1)
    assert move("provider_unavailable", Tried(6, 2, 0), at_candidate(routed(), 2)) is None


def test_a_candidate_that_could_not_mend_its_answer_is_not_called_again() -> None:
    """Whatever became of the repair, the next candidate has its turn, or the failure is the end."""
    repaired = Tried(2, 1, 0, repaired=True)
    assert move("provider_schema_mismatch", repaired) == move("provider_unavailable", repaired) == Next(1)
    assert move("provider_schema_mismatch", repaired, at_candidate(routed(), 2)) is None
    assert move("provider_content_refused", repaired) is None


def test_a_wait_beyond_the_deadline_goes_to_the_next_candidate_at_once() -> None:
    """Nobody waits for a provider that asks for more time than there is."""
    late = routed(deadline=NOON + 1_000_000)
    assert move("provider_rate_limited", to=late, wait=999) == Again(0.999)
    assert move("provider_rate_limited", to=late, wait=1_000) == Next(1)


@pytest.mark.parametrize("code", sorted(CODES))
def test_what_would_come_back_the_same_ends_the_request_unless_its_route_says_otherwise(code: str) -> None:
    """Refusals and bad requests do not fall back of themselves; any code does where the route names it."""
    spent = Tried(2, 2, 0)
    assert move(code, spent) == (Next(1) if code in FALLS_BACK else None)
    assert move(code, spent, routed(fall_back_on=(code,))) == Next(1)


def test_calls_and_money_are_bounded_by_the_request() -> None:
    """The request's own bounds hold over all candidates; one whose bound does not fit is passed over."""
    assert move("provider_unavailable", Tried(2, 2, 0), routed(max_attempts=2)) is None
    tight = routed(max_cost_nano_usd=4_000)
    assert move("provider_unavailable", Tried(2, 2, 1_000), tight) == Next(1)
    assert move("provider_unavailable", Tried(2, 2, 1_001), tight) is None
    assert move("provider_unavailable", Tried(1, 1, 3_001), tight) is None


def test_a_call_that_a_crash_cut_off_goes_on_only_where_the_request_lets_it() -> None:
    """The ledger decides on another call of the same model; when it had all its calls, the next candidate has its turn."""
    assert after_lost(RULE, routed(), Tried(1, 1, 0)) == Again(0.0)
    assert after_lost(RULE, routed(), Tried(2, 2, 0)) == Next(1)
    assert after_lost(RULE, routed(on_unknown_outcome="fail"), Tried(2, 2, 0)) == Again(0.0)
    assert after_lost(RULE, routed(max_attempts=2), Tried(2, 2, 0)) == Again(0.0)
    assert after_lost(RULE, at_candidate(routed(), 2), Tried(2, 2, 0)) == Again(0.0)


def test_a_call_of_unknown_cost_counts_with_its_bound() -> None:
    """What nobody knows is counted at the most that it can be."""
    to = at_candidate(routed(), 1)
    assert tried_so_far(to, [(0, 7), (0, None), (1, None)]) == Tried(3, 1, 7 + 1_000 + 3_000, frozenset({0, 1}))


@given(
    st.lists(st.one_of(st.none(), st.integers(0, 50)), max_size=6),
    st.integers(-1, 6),
    st.one_of(st.none(), st.integers(-5, 60)),
)
def test_the_next_candidate_is_the_first_later_one_that_fits(bounds: list[int | None], after: int, room: int | None) -> None:  # fmt: skip
    """None is passed over that could be paid for, and none is taken that could not."""
    found = next_candidate([candidate("echo/echo", bound) for bound in bounds], after, room)
    fits = [
        i for i, bound in enumerate(bounds) if i > after and (room is None or (bound is not None and bound <= room))
    ]
    assert found == (fits[0] if fits else None)
