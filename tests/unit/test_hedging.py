"""When a second candidate is called beside a late one, and which."""

from __future__ import annotations

from typing import Any

import pytest

from core.fallback import Tried, at_candidate, tried_so_far
from core.hedging import LEAST_US, hedge_after_us, hedge_to, most_at_once
from core.standing import UNKNOWN, Standing
from schemas.events import LlmCall
from tests.unit.test_fallback import candidate, routed


def late(place: int = 0, waits: bool = True, **changes: Any) -> LlmCall:
    """A call to one of two models of one provider, or one of two others, all of which are waited for."""
    models = ("openai/gpt-5", "openai/gpt-5-mini", "anthropic/claude-haiku-4-5", "google/gemini-2.5-pro")
    candidates = [{**candidate(model), "hedge_after_us": 1 if waits else None} for model in models]
    return at_candidate(routed(candidates, **changes), place)  # type: ignore[arg-type]


def to(call: LlmCall, *before: tuple[int, int | None]) -> int | None:
    return hedge_to(call, tried_so_far(call, [*before, (call["candidate"], None)]))


def test_a_hedge_goes_to_the_next_candidate_of_another_provider() -> None:
    """Not to the same provider, nor to a candidate that was called already, nor back; behind the last there is none."""
    assert [to(late(place)) for place in range(4)] == [2, 2, 3, None]
    assert to(late(1), (0, 5), (2, 5)) == 3


def test_a_hedge_is_not_hedged_and_needs_the_routes_word() -> None:
    """Nothing is called beside a call without a wait, one that is itself a hedge, or one of a time before there were candidates."""
    assert to(late(waits=False)) is None
    assert to({**late(), "beside": 1}) is None
    assert hedge_to({**late(), "candidates": []}, Tried(1, 1, 0)) is None


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"max_attempts": 1}, None), ({"max_attempts": 2}, 2), ({"max_cost_nano_usd": 1_999}, None),
        ({"max_cost_nano_usd": 2_000}, 2), ({"on_unknown_outcome": "fail"}, None),
    ],
)  # fmt: skip
def test_both_calls_fit_into_what_the_request_allows(changes: dict[str, Any], found: int | None) -> None:
    """The bounds of both calls count together, and a request that would rather fail than be called twice is called once."""
    assert to(late(**changes)) == found


def test_what_is_held_is_the_most_that_two_calls_at_once_can_cost() -> None:
    """A late call and the dearest later one of another provider, where anything is hedged; else the dearest call."""
    bounds = [("openai", 5), ("openai", 40), ("google", 7), ("anthropic", None)]
    for waits, most in (
        ((), 40), ((0,), 40), ((1,), 47), ((0, 1, 2, 3), 47), ((2,), 40), ((3,), 40),
    ):  # fmt: skip
        candidates = [
            {**candidate(f"{name}/m", bound), "hedge_after_us": 1 if place in waits else None}
            for place, (name, bound) in enumerate(bounds)
        ]
        assert most_at_once(candidates) == most  # type: ignore[arg-type]
    assert most_at_once([]) == 0


def test_the_wait_is_the_p95_of_what_the_caller_waits_for() -> None:
    """The first token's where the answer is streamed, else the answer's; never less than the least, nothing where too little is known."""
    standing = Standing(first_token_p95_ms=250.5, answer_p95_ms=4_000)
    assert (hedge_after_us(standing, True), hedge_after_us(standing, False)) == (250_500, 4_000_000)
    assert hedge_after_us(Standing(answer_p95_ms=2), False) == LEAST_US
    assert hedge_after_us(UNKNOWN, True) is None
