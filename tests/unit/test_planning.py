"""The plan of a request: what of the registry and of the standings goes into its call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agents.planning import Plan, Planner, call_of
from config.registry import from_environment
from config.settings import Settings
from config.tasks import Prepared
from core.registry import Registry, Route, Target
from core.standing import Standing
from tests.examples import NOON, request

MODELS = ("openai/gpt-5-mini", "google/gemini-2.5-flash")
STANDINGS = {MODELS[0]: Standing(first_token_p95_ms=300, answer_p95_ms=2_000)}


def waits(hedge: bool, standings: Mapping[str, Standing] = STANDINGS, **changes: Any) -> list[int | None]:
    """How long each candidate of a planned request is waited for, as its call has it."""
    known = from_environment(Settings(), NOON)
    route = Route("r", tuple(map(Target, MODELS)), task="t", hedge=hedge)
    registry = Registry(known.providers, known.models, (route,))
    planner = Planner(lambda: registry, lambda: standings, {}, 1_000)
    asked = request(model=None, task="t", **changes)
    plan = planner.plan(Prepared(asked, "t", None, False), NOON)
    assert isinstance(plan, Plan)
    call = call_of(asked, Plan.unpacked(plan.packed()), NOON, None, None)
    assert (call["beside"], call["candidate"], f"{call['provider']}/{call['model']}") == (None, 0, MODELS[0])
    return [candidate["hedge_after_us"] for candidate in call["candidates"]]


def test_only_a_route_that_says_so_hedges_and_only_what_is_known_is_waited_for() -> None:
    """The wait is the p95 of what the caller waits for, and kept with the plan; without enough calls there is none."""
    assert waits(hedge=False) == [None, None]
    assert waits(hedge=True) == [2_000_000, None]
    assert waits(hedge=True, stream=True) == [300_000, None]
    assert waits(hedge=True, standings={}) == [None, None]
    assert waits(hedge=True, on_unknown_outcome="fail") == waits(hedge=True, max_attempts=1) == [None, None]
