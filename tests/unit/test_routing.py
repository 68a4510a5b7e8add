"""Which model answers: never one that cannot or may not, always the same for the same facts, and a reason for each."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from multiprocessing import get_context
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.asked import Asked
from core.draw import DRAWS, draw
from core.errors import error
from core.registry import TIERS, Capability, Model, Provider, Registry, Route, StickyKey, Target
from core.routing import Choice, Conditions, NoChoice, Router
from core.standing import Standing, outage
from tests.examples import NOON
from tests.unit.routers import an_id, ask, choose, conditions, model, names, router

CAPABILITIES: tuple[Capability, ...] = ("text", "image", "tools")
STRATEGIES = ("complexity", "health", "cost", "latency", "success_rate")
SECOND = 1_000_000
labels = st.sampled_from(["a", "b", "c"])
patterns = st.sampled_from(["*", "a", "b", "a*", "[bc]"])
standings = st.builds(
    Standing,
    health=st.sampled_from(["healthy", "unknown", "suspect", "unhealthy"]),
    breaker_open_until=st.sampled_from([None, NOON - 1, NOON + SECOND]),
    resting_until=st.sampled_from([None, NOON - 1, NOON + SECOND]),
    p50_ms=st.none() | st.floats(0, 10_000),
    success_rate=st.none() | st.floats(0, 1),
)
models = st.builds(
    Model,
    provider=st.sampled_from(["p", "q"]),
    name=labels,
    aliases=st.sets(st.sampled_from(["x", "y"])).map(tuple),
    capabilities=st.frozensets(st.sampled_from(CAPABILITIES)),
    context_tokens=st.none() | st.integers(0, 200),
    tier=st.sampled_from(TIERS),
    enabled=st.booleans(),
    weight=st.integers(0, 3),
)
targets = st.builds(Target, st.sampled_from(["p/a", "p/b", "q/a", "q/c", "x", "y", "gone/z"]), st.integers(0, 3))
shares = st.sampled_from([Decimal(0), Decimal("12.5"), Decimal(40), Decimal(60), Decimal(100)])
sticky = st.sampled_from(get_args(StickyKey))
routes = st.builds(
    Route,
    name=st.text("rst", min_size=1, max_size=3),
    targets=st.lists(targets, max_size=4).map(tuple),
    plan=patterns,
    task=patterns,
    tenant=patterns,
    model=st.none() | st.sampled_from(["*", "x", "p/*"]),
    precedence=st.integers(0, 2),
    enabled=st.booleans(),
    valid_from=st.sampled_from([None, NOON, NOON + 1]),
    valid_until=st.sampled_from([None, NOON, NOON + 1]),
    share=shares,
    sticky=sticky,
    order=st.sampled_from(["priority", "weighted"]),
    strategies=st.lists(st.sampled_from(STRATEGIES), unique=True).map(tuple),
    quality_floor=st.none() | st.sampled_from(TIERS),
)


def _alike(precedence: int, sticky: StickyKey, shares: list[Decimal]) -> list[Route]:
    """Routes that divide all requests without a model by these shares."""
    return [
        Route(f"u{number}", (Target("p/a"),), precedence=precedence, sticky=sticky, share=share)
        for number, share in enumerate(shares)
    ]


registries = st.builds(
    Registry,
    providers=st.fixed_dictionaries(
        {},
        optional={name: st.builds(Provider, st.just(name), st.just("openai"), enabled=st.booleans()) for name in "pq"},
    ),
    models=st.lists(models, max_size=6, unique_by=lambda one: one.full_name).map(tuple),
    routes=st.builds(
        lambda several, alike: (*several, *alike),
        st.lists(routes, max_size=5, unique_by=lambda one: one.name),
        st.builds(_alike, st.integers(0, 2), sticky, st.lists(shares, max_size=4)),
    ),
)
requests = st.builds(
    Asked,
    request_id=st.integers(0, 2**128 - 1).map(an_id),
    now=st.just(NOON),
    model=st.sampled_from([None, None, None, "p/a", "q/c", "x", "y", "gone/z"]),
    plan=st.none() | labels,
    task=st.none() | labels,
    tenant=labels,
    user=st.none() | labels,
    priority=st.sampled_from(["interactive", "batch"]),
    needs=st.frozensets(st.sampled_from(CAPABILITIES)),
    input_tokens=st.integers(0, 100),
    max_output_tokens=st.integers(1, 100),
    max_cost_nano_usd=st.none() | st.integers(0, 10),
    characters=st.integers(0, 20_000),
)
full_names = st.sampled_from(["p", "q", "p/a", "p/b", "p/c", "q/a", "q/b", "q/c"])
bounds = st.dictionaries(full_names, st.none() | st.integers(0, 12))


@pytest.fixture(scope="module")
def other_process() -> Iterator[Executor]:
    """A process with another hash seed, whose sets of text are in another order."""
    with pytest.MonkeyPatch.context() as patch, ProcessPoolExecutor(1, get_context("spawn")) as pool:
        patch.setenv("PYTHONHASHSEED", "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2")
        assert pool.submit(len, "it has begun").result() == 12
        yield pool


@settings(deadline=None)
@given(registries, requests, st.dictionaries(full_names, standings), bounds)
def test_a_choice_follows_from_the_facts_alone(
    other_process: Executor, registry: Registry, one: Asked, known: dict[str, Standing], bounds: dict[str, int | None]
) -> None:
    """A process whose sets are in another order chooses the same, to the word."""
    facts = registry, one, known, bounds
    assert choose(*facts) == other_process.submit(choose, *facts).result()


@given(registries, requests, st.dictionaries(full_names, standings), bounds)
def test_no_candidate_is_ever_one_that_cannot_or_may_not_serve(
    registry: Registry, one: Asked, known: dict[str, Standing], bounds: dict[str, int | None]
) -> None:
    """Whatever the registry, a candidate is enabled, capable, large enough and within the cost; one out of service is alone."""
    around = Conditions(lambda m: bounds.get(m.full_name), known)
    made = Router(registry).choose(one, around)
    if isinstance(made, NoChoice):
        assert made.error["message"].endswith(".")
        assert not any(decision["kept"] for decision in made.decisions)
        return
    for candidate in made.candidates:
        chosen = candidate.model
        assert chosen in registry.models
        assert registry.providers[chosen.provider].enabled and chosen.enabled
        assert one.needs <= chosen.capabilities
        assert chosen.context_tokens is None or one.input_tokens + one.max_output_tokens <= chosen.context_tokens
        bound = bounds.get(chosen.full_name)
        assert candidate.bound_nano_usd == bound
        assert one.max_cost_nano_usd is None or (bound is not None and bound <= one.max_cost_nano_usd)
        if made.route is not None and made.route.quality_floor is not None:
            assert TIERS.index(chosen.tier) >= TIERS.index(made.route.quality_floor)
        if outage(around.standing(chosen), NOON) is not None:
            assert len(made.candidates) == 1
            assert made.decisions[0]["reason"].startswith("last resort: ")


@given(registries, requests, st.dictionaries(full_names, standings))
def test_every_model_considered_has_one_decision_with_a_reason(
    registry: Registry, one: Asked, known: dict[str, Standing]
) -> None:
    """The decisions are the models that the targets name, each once: the candidates in their order, then those dropped."""
    made = Router(registry).choose(one, Conditions(lambda _: 1, known))
    if isinstance(made, NoChoice) and made.error["code"] in ("policy_no_route", "caller_unknown_model"):
        assert made.decisions == ()
        return
    named = [one.model] if made.route is None else [target.model for target in made.route.targets]
    considered: set[str] = set()
    for name in named:
        meant = {m.full_name for m in registry.models if name == m.full_name or name in m.aliases}
        considered |= meant or {name}
    assert sorted(decision["model"] for decision in made.decisions) == sorted(considered)
    assert all(decision["reason"] for decision in made.decisions)
    kept = [decision["model"] for decision in made.decisions if decision["kept"]]
    candidates = made.candidates if isinstance(made, Choice) else ()
    assert kept == [candidate.model.full_name for candidate in candidates]
    assert all(d["reason"].startswith("dropped: ") for d in made.decisions if not d["kept"])


@given(registries, requests)
def test_the_route_that_holds_is_the_one_a_look_at_each_would_find(registry: Registry, one: Asked) -> None:
    """The index agrees with the rules as they are told, read route by route."""
    made = Router(registry).choose(one, Conditions(lambda _: 1))
    ranked = sorted((r for r in registry.routes if r.enabled), key=lambda r: (-r.precedence, _loose(r), r.name))
    in_force = [
        r for r in ranked
        if _matches(r, one) and (r.valid_from or 0) <= NOON and (r.valid_until is None or r.valid_until > NOON)
    ]  # fmt: skip
    taken: defaultdict[tuple[str, ...], Fraction] = defaultdict(Fraction)
    for route in in_force:
        # Routes alike divide one draw of the key between them.
        alike = (route.plan, route.task, route.tenant, route.model or "", str(route.precedence), route.sticky)
        drawn = Fraction(draw(*alike, getattr(one, route.sticky) or one.request_id), DRAWS)
        taken[alike] += Fraction(route.share)
        if drawn * 100 < taken[alike]:
            assert made.route is route
            return
    assert made.route is None


def _matches(route: Route, one: Asked) -> bool:
    def fits(pattern: str, value: str | None) -> bool:
        letters = {"*": ["", "a", "b", "c"], "a": ["a"], "b": ["b"], "a*": ["a"], "[bc]": ["b", "c"]}[pattern]
        return (value or "") in letters

    if (route.model is None) != (one.model is None):
        return False
    for_model = route.model in (None, "*", one.model) or (route.model == "p/*" and (one.model or "").startswith("p/"))
    return for_model and fits(route.plan, one.plan) and fits(route.task, one.task) and fits(route.tenant, one.tenant)


def _loose(route: Route) -> tuple[int, ...]:
    kinds = {None: 2, "*": 2, "a*": 1, "[bc]": 1, "p/*": 1}
    return tuple(kinds.get(field, 0) for field in (route.tenant, route.task, route.plan, route.model))


@pytest.mark.parametrize(
    ("changes", "provider", "asked_for", "says"),
    [
        ({"enabled": False}, {}, {}, "the model is disabled"),
        ({}, {"enabled": False}, {}, "provider p is disabled"),
        ({"context_tokens": 8_000}, {}, {"input_tokens": 7_000, "max_output_tokens": 1_001}, "context of 8,000"),
        ({}, {}, {"max_cost_nano_usd": 999_999}, "may cost 0.001000 USD, and the request may cost 0.001000 USD"),
    ],
)  # fmt: skip
def test_a_dropped_model_is_named_with_its_reason(
    changes: dict[str, Any], provider: dict[str, Any], asked_for: dict[str, Any], says: str
) -> None:
    """The caller's error says which model was considered and what stood against it."""
    one = router(model("a", **changes), **provider)
    made = one.choose(ask(model="p/a", **asked_for), conditions({"a": 1_000_000}))
    assert isinstance(made, NoChoice)
    assert made.error["code"] == "policy_no_candidate"
    assert "p/a" in made.error["message"] and says in made.error["message"], made.error["message"]


def test_a_request_that_no_model_can_take_is_told_what_to_leave_out() -> None:
    """Where the request itself is at fault its caller hears so, whether the registry or the model's API says it."""
    seeing = ask(model="p/a", needs=frozenset({"text", "image"}))
    made = router(model("a")).choose(seeing, conditions({"a": 1}))
    assert isinstance(made, NoChoice)
    assert (made.error["code"], "no image" in made.error["message"]) == ("caller_unsupported_feature", True)
    refused = error("caller_unsupported_feature", "Content of type audio is not offered by p; leave it out.")
    made = router(model("a")).choose(ask(model="p/a"), replace(conditions({"a": 1}), refusal=lambda _: refused))
    assert isinstance(made, NoChoice) and made.error == refused


def test_a_model_without_a_price_cannot_be_cheap_enough() -> None:
    """Where the request bounds its cost, a model whose cost nobody knows is dropped; else it serves."""
    one = router(model("a"))
    assert names(one.choose(ask(model="p/a"), conditions({"a": None}))) == ["a"]
    made = one.choose(ask(model="p/a", max_cost_nano_usd=10**12), conditions({"a": None}))
    assert isinstance(made, NoChoice)
    assert "it has no price" in made.error["message"]


def test_an_unknown_model_is_refused_with_the_nearest_names() -> None:
    """A typing error is answered with what may have been meant."""
    made = router(model("gpt-5-mini")).choose(ask(model="p/gpt5-mini"), conditions())
    assert isinstance(made, NoChoice)
    assert made.error["code"] == "caller_unknown_model"
    assert "p/gpt-5-mini" in made.error["message"]


def test_a_model_beyond_the_registry_is_held_to_what_is_known_of_it() -> None:
    """It may be asked for without being registered, and is dropped for what it cannot do, its context, its tier or its provider."""
    known = model("listed", context_tokens=1_000, tier="cheap")
    floor = Route("r", (Target("p/listed"),), quality_floor="balanced")

    def chosen(one: Asked, *routes: Route, enabled: bool = True) -> Choice | NoChoice:
        registry = Registry({"p": Provider("p", "openai", enabled=enabled)}, routes=routes)
        listed = {("p", "listed"): known}
        return Router(registry, lambda provider, name, _: listed.get((provider, name))).choose(one, conditions())

    assert names(chosen(ask(model="p/listed"))) == ["listed"]
    for refused, says in (
        (chosen(ask(model="p/listed", needs=frozenset({"image"}))), "has no image"),
        (chosen(ask(model="p/listed", input_tokens=1_001)), "do not fit its context of 1,000"),
        (chosen(ask(), floor), "tier cheap is below the floor balanced"),
        (chosen(ask(model="p/listed"), enabled=False), "provider p is disabled"),
        (chosen(ask(model="p/other")), "is not known here"),
    ):
        assert isinstance(refused, NoChoice) and says in refused.error["message"]


def test_a_model_without_a_provider_is_the_default_providers() -> None:
    """Also one that only the price list knows; an alias comes before it, and without a default it is not known."""
    providers = {name: Provider(name, "openai", default=name == "p") for name in ("o", "p")}
    models = (model("a"), model("b", aliases=("c",)), model("c"), Model("o", "d"))
    listed = {("p", "listed"): Model("p", "listed")}
    chooses = Router(Registry(providers, models), lambda provider, name, _: listed.get((provider, name)))

    def chosen(name: str) -> str:
        choice = chooses.choose(ask(model=name), conditions())
        return choice.candidates[0].model.full_name if isinstance(choice, Choice) else choice.error["code"]

    assert {name: chosen(name) for name in ("a", "c", "listed", "d", "o/d")} == {
        "a": "p/a", "c": "p/b", "listed": "p/listed", "d": "caller_unknown_model", "o/d": "o/d",
    }  # fmt: skip
    refused = router(*models[:3]).choose(ask(model="a"), conditions())
    assert isinstance(refused, NoChoice)
    assert refused.error["code"] == "caller_unknown_model"


def test_a_route_for_a_model_holds_for_its_short_name_too() -> None:
    """Asked for without its provider it is the default provider's model: its route holds, and it was asked for, no deployment of an alias."""
    registry = Registry(
        {"p": Provider("p", "openai", default=True)}, (model("a"), model("b"), model("c")),
        (Route("cap", (Target("p/b"),), model="p/a"),),
    )  # fmt: skip
    chooses = Router(registry)
    for name in ("a", "p/a"):
        choice = chooses.choose(ask(model=name), conditions())
        assert isinstance(choice, Choice) and choice.route is not None
        assert (choice.route.name, choice.candidates[0].model.full_name) == ("cap", "p/b")
    plain = chooses.choose(ask(model="c"), conditions())
    assert isinstance(plain, Choice)
    assert (plain.route, plain.decisions[0]["reason"]) == (None, "asked for")


def test_deployments_of_an_alias_are_drawn_by_their_weight() -> None:
    """Three in four requests go to the deployment with weight 3, the other follows; weight 0 is only a reserve."""
    one = router(
        model("a", aliases=("both",), weight=3), model("b", aliases=("both",)), model("c", aliases=("both",), weight=0)
    )
    orders = [names(one.choose(ask(model="both", request_id=an_id(n)), conditions())) for n in range(2_000)]
    assert 1_400 < sum(order[0] == "a" for order in orders) < 1_600
    assert all(sorted(order) == ["a", "b", "c"] and order[2] == "c" for order in orders)


def test_a_weighted_order_draws_targets_by_their_weight() -> None:
    """The first candidate is each target as often as its weight says, and the same for a request asked again."""
    route = Route("r", (Target("p/a", 1), Target("p/b", 4)), order="weighted")
    one = router(model("a"), model("b"), routes=(route,))
    orders = [names(one.choose(ask(request_id=an_id(n)), conditions())) for n in range(2_000)]
    assert orders == [names(one.choose(ask(request_id=an_id(n)), conditions())) for n in range(2_000)]
    assert 1_520 < sum(order == ["b", "a"] for order in orders) < 1_680


def test_a_provider_out_of_service_takes_its_models_with_it() -> None:
    """What holds of the provider holds of each of its models."""
    route = Route("r", (Target("p/a"), Target("q/b")))
    one = router(model("a"), Model("q", "b"), routes=(route,))
    assert names(one.choose(ask(), Conditions(lambda _: 1, {"p": Standing("unhealthy")}))) == ["b"]
    healthy = Conditions(lambda _: 1, {"p": Standing("healthy"), "p/a": Standing(resting_until=NOON + 1)})
    assert names(one.choose(ask(), healthy)) == ["b"]
