"""The plan of a request: what of the registry and of the standings goes into its call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from agents.planning import Plan, Planner, call_of
from agents.structured import REPAIR_TOKENS
from config.registry import from_environment
from config.settings import Settings
from config.tasks import Prepared
from core.registry import Model, Registry, Route, Target
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


@pytest.mark.parametrize(
    ("asked_for", "routes", "most"), [(None, 1, 1), (3, 2, 2), (1, 5, 1), (2, None, 2), (None, None, None)]
)
def test_a_route_bounds_the_calls_of_a_request(asked_for: int | None, routes: int | None, most: int | None) -> None:
    """The request's own bound holds beside it, and what may be called once is not hedged."""
    known = from_environment(Settings(), NOON)
    route = Route("r", tuple(map(Target, MODELS)), task="t", hedge=True, max_attempts=routes)
    planner = Planner(lambda: Registry(known.providers, known.models, (route,)), lambda: STANDINGS, {}, 1_000)
    plan = planner.plan(Prepared(request(model=None, task="t", max_attempts=asked_for), "t", None, False), NOON)
    assert isinstance(plan, Plan)
    assert plan.max_attempts == most
    assert (plan.fields["candidates"][0]["hedge_after_us"] is None) == (most == 1)


def test_a_models_default_bounds_an_answer_that_nothing_else_bounds() -> None:
    """It holds for that candidate alone, its bound and what limits hold included; a limit of the request comes before it."""
    known = from_environment(Settings(), NOON)
    small, other = Model("openai", "gpt-5-mini", default_output_tokens=300), Model("google", "gemini-2.5-flash")
    route = Route("r", (Target(small.full_name), Target(other.full_name)), task="t")

    def planned(*models: Model, repair: bool = False, **changes: Any) -> Plan:
        registry = Registry(known.providers, models, (route,))
        planner = Planner(lambda: registry, dict, {}, 1_000)
        asked = request("Hi", model=None, task="t", **changes)
        plan = planner.plan(Prepared(asked, "t", None, repair), NOON)
        assert isinstance(plan, Plan)
        return plan

    def outputs(plan: Plan) -> list[int]:
        return [candidate["max_output_tokens"] for candidate in plan.fields["candidates"]]

    free, bounded = planned(small, other), planned(small, other, parameters=limited(5_000))
    assert (outputs(free), outputs(bounded)) == ([300, 1_000], [5_000, 5_000])
    dear = planned(replace(small, default_output_tokens=1_000), other)
    price = 2_000  # nano-USD a token of output of gpt-5-mini
    assert bounds(dear)[0] - bounds(free)[0] == 700 * price
    assert bounds(dear)[1] == bounds(free)[1]
    large = planned(replace(small, default_output_tokens=9_000), other)
    assert (free.tokens, large.tokens - free.tokens) == (dear.tokens, 8_000)
    assert planned(small, other, repair=True).tokens == dear.tokens + 1_000 + REPAIR_TOKENS
    unfit = planned(replace(small, default_output_tokens=9_000, context_tokens=8_000), other)
    assert unfit.models == (other.full_name,)
    assert "up to 9,000 out do not fit its context of 8,000" in unfit.fields["decisions"][-1]["reason"]


def limited(tokens: int) -> Any:
    """The parameters of a request that limits its answer."""
    return {**request()["parameters"], "max_output_tokens": tokens}


def bounds(plan: Plan) -> list[int]:
    """The most that a call to each candidate can cost."""
    return [candidate["reserved_nano_usd"] for candidate in plan.fields["candidates"]]


def test_the_candidates_to_do_without_are_those_that_no_name_of_degrade_to_stands_for() -> None:
    """All deployments of an alias are cheap together; with none of them left, or nothing else, there is nothing to do without."""
    known = from_environment(Settings(), NOON)
    small = [Model("openai", "gpt-5-mini", ("small",)), Model("google", "gemini-2.5-flash", ("small",))]
    route = Route("r", (Target("small"), Target("openai/gpt-5")), task="t", degrade_from=70, degrade_to=("small",))

    def planned(*models: Model) -> Plan:
        registry = Registry(known.providers, (*models, Model("openai", "gpt-5")), (route,))
        planner = Planner(lambda: registry, dict, {}, 1_000)
        plan = planner.plan(Prepared(request(model=None, task="t"), "t", None, False), NOON)
        assert isinstance(plan, Plan)
        return plan

    plan = planned(*small)
    assert (plan.models[2], plan.degrade_from, plan.dearer) == ("openai/gpt-5", 70, (2,))
    assert plan.without({0: "gone"}).dearer == (1,)
    assert plan.without({2: "gone"}).dearer == ()
    assert plan.without({0: "gone", 1: "gone"}).dearer == ()
    assert planned(*(replace(model, enabled=False) for model in small)).dearer == ()


@pytest.mark.parametrize("out", [{"resting_until": NOON + 1}, {"breaker_open_until": NOON + 1}])
def test_a_tenant_with_a_key_of_its_own_does_not_wait_for_the_platforms(out: dict[str, int]) -> None:
    """What keeps the platform's key back drops the model for those alone who are called with it; ill health drops it for all."""
    registry = from_environment(Settings(), NOON)
    route = Route("r", tuple(map(Target, MODELS)), task="t")
    standings: dict[str, Standing] = {MODELS[0]: Standing(**out)}
    planner = Planner(
        lambda: Registry(registry.providers, registry.models, (route,)), lambda: standings, {}, 1_000,
        own_key=lambda provider, tenant: (provider, tenant) == ("openai", "acme"),
    )  # fmt: skip

    def models(tenant: str) -> tuple[str, ...]:
        plan = planner.plan(Prepared(request(model=None, task="t", tenant=tenant), "t", None, False), NOON)
        assert isinstance(plan, Plan)
        return plan.models

    assert models("acme") == MODELS
    assert models("globex") == MODELS[1:]
    standings["openai"] = Standing("unhealthy")
    assert models("acme") == MODELS[1:]
    # What was wrong was the platform's key.
    standings["openai"] = Standing("unhealthy", of_the_key=True)
    assert (models("acme"), models("globex")) == (MODELS, MODELS[1:])
