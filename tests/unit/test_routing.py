"""Which model answers: never one that cannot or may not, always the same for the same facts, and a reason for each."""

from __future__ import annotations

import uuid
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.registry import from_environment
from config.settings import settings_in
from core.asked import Asked, asked
from core.complexity import complexity, misfit, tier_for
from core.errors import error
from core.registry import TIERS, Capability, Model, Provider, Registry, Route, Target
from core.routing import Choice, Conditions, NoChoice, Router
from core.standing import Standing, outage
from tests.examples import NOON, request

FAST, QUALITY = "google/gemini-2.5-flash", "google/gemini-2.5-pro"
CAPABILITIES: tuple[Capability, ...] = ("text", "image", "tools")
STRATEGIES = ("complexity", "health", "cost", "latency", "success_rate")
SECOND = 1_000_000


def model(name: str, **changes: Any) -> Model:
    """A model of provider `p`."""
    return Model("p", name, **changes)


def router(*models: Model, routes: tuple[Route, ...] = (), **provider: Any) -> Router:
    """A router over these models, all of them of provider `p` unless they say otherwise."""
    names = {one.provider for one in models} | {"p"}
    return Router(Registry({name: Provider(name, "openai", **provider) for name in names}, models, routes))


def conditions(bounds: dict[str, int | None] | None = None, **standings: Standing) -> Conditions:
    """Conditions by the names of models of provider `p`."""
    return Conditions(lambda one: (bounds or {}).get(one.name, 1), {f"p/{name}": s for name, s in standings.items()})


def names(choice: Choice | NoChoice) -> list[str]:
    """The candidates' names in order; an error fails the test with its sentence."""
    assert isinstance(choice, Choice), choice
    return [one.model.name for one in choice.candidates]


def an_id(number: int) -> str:
    return str(uuid.UUID(int=number))


def ask(**changes: Any) -> Asked:
    return Asked(**{"request_id": an_id(1), "now": NOON, **changes})


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
    share=st.sampled_from([Decimal(0), Decimal("12.5"), Decimal(60), Decimal(100)]),
    sticky=st.sampled_from(["request_id", "user", "tenant", "project"]),
    order=st.sampled_from(["priority", "weighted"]),
    strategies=st.lists(st.sampled_from(STRATEGIES), unique=True).map(tuple),
    quality_floor=st.none() | st.sampled_from(TIERS),
)
registries = st.builds(
    Registry,
    providers=st.fixed_dictionaries(
        {},
        optional={name: st.builds(Provider, st.just(name), st.just("openai"), enabled=st.booleans()) for name in "pq"},
    ),
    models=st.lists(models, max_size=6, unique_by=lambda one: one.full_name).map(tuple),
    routes=st.lists(routes, max_size=6, unique_by=lambda one: one.name).map(tuple),
)
requests = st.builds(
    Asked,
    request_id=st.integers(0, 2**128 - 1).map(an_id),
    now=st.just(NOON),
    model=st.sampled_from([None, "p/a", "q/c", "x", "y", "gone/z"]),
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


@given(registries, requests, st.dictionaries(full_names, standings), bounds)
def test_no_candidate_is_ever_one_that_cannot_or_may_not_serve(
    registry: Registry, one: Asked, known: dict[str, Standing], bounds: dict[str, int | None]
) -> None:
    """Whatever the registry, a candidate is enabled, capable, large enough and within the cost; one out of service is alone."""
    around = Conditions(lambda m: bounds.get(m.full_name), known)
    made = Router(registry).choose(one, around)
    assert made == Router(registry).choose(one, around)
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
    for sure in in_force:
        if sure is made.route:
            return
        # Only a share lets a route pass that matches.
        assert sure.share < 100
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


@given(st.integers(0, 10_000), st.integers(0, 10_000), st.integers(0, 2**64))
def test_a_share_that_grows_only_adds_keys(one: int, other: int, user: int) -> None:
    """Whoever was on the canary at 5 % is on it at 20 %."""
    small, large = sorted((one, other))
    taken = [_on_canary(Decimal(share) / 100, str(user)) for share in (small, large)]
    assert taken[1] or not taken[0]


def test_a_share_is_about_its_percentage_of_keys_and_what_it_leaves_falls_through() -> None:
    """Of 2,000 users about a quarter are on a route with a share of 25, the others on the next; 0 takes nobody."""
    taken = sum(_on_canary(Decimal(25), f"user-{number}") for number in range(2_000))
    assert 430 < taken < 570
    assert not any(_on_canary(Decimal(0), f"user-{number}") for number in range(100))
    assert all(_on_canary(Decimal(100), f"user-{number}") for number in range(100))


def test_two_requests_of_one_user_stay_on_one_side_of_a_canary() -> None:
    """The sticky field decides, not the request."""
    for user in ("ana", "ben", "cleo"):
        assert len({_on_canary(Decimal(50), user, request_id=an_id(n)) for n in range(20)}) == 1
    without_user = {_on_canary(Decimal(50), None, request_id=an_id(n)) for n in range(40)}
    assert without_user == {True, False}


def _on_canary(share: Decimal, user: str | None, **changes: Any) -> bool:
    canary = Route("canary", (Target("p/new"),), share=share, precedence=1)
    rest = Route("rest", (Target("p/old"),))
    made = router(model("new"), model("old"), routes=(canary, rest)).choose(ask(user=user, **changes), conditions())
    return names(made) == ["new"]


@pytest.mark.parametrize(
    ("plan", "task", "expected"),
    [
        *((plan, "extraction", FAST) for plan in ("freemium", "paygo", "pro", "any", None)),
        *((plan, task, FAST) for plan in ("freemium", "paygo", "any", None) for task in ("cv_draft", "cover_letter")),
        *(("pro", task, QUALITY) for task in ("cv_draft", "cover_letter")),
    ],
)
def test_the_table_by_plan_and_task(plan: str | None, task: str, expected: str) -> None:
    """The shipped routes choose by plan and task for requests that name no model."""
    made = Router(from_environment(settings_in({}), NOON)).choose(ask(plan=plan, task=task), conditions())
    assert isinstance(made, Choice)
    assert [one.model.full_name for one in made.candidates] == [expected]


def test_the_table_has_no_answer_for_another_task() -> None:
    """A request without a model that no route is for is told what was looked for."""
    made = Router(from_environment(settings_in({}), NOON)).choose(ask(plan="pro", task="poetry"), conditions())
    assert isinstance(made, NoChoice)
    assert made.error["code"] == "policy_no_route"
    assert all(word in made.error["message"] for word in ("plan pro", "task poetry", "tenant default"))


def test_a_tenant_by_name_goes_before_a_task_before_a_plan() -> None:
    """Of routes with one precedence the most specific holds; a higher precedence beats them all."""
    made = [
        Route("by-plan", (Target("p/a"),), plan="pro"),
        Route("by-task", (Target("p/b"),), task="cv"),
        Route("by-tenant", (Target("p/c"),), tenant="acme"),
        Route("anything", (Target("p/d"),), precedence=1),
    ]
    one = ask(plan="pro", task="cv", tenant="acme")
    for held in ("d", "c", "b", "a"):
        among = router(*(model(name) for name in "abcd"), routes=tuple(made))
        assert names(among.choose(one, conditions())) == [held]
        made.remove(made[-1])


def test_a_route_holds_from_its_first_moment_until_before_its_last() -> None:
    """Dates of validity are a half-open interval."""
    for since, until, held in (
        (NOON, NOON + 1, True),
        (NOON + 1, None, False),
        (None, NOON, False),
        (None, None, True),
    ):
        one = router(model("a"), routes=(Route("r", (Target("p/a"),), valid_from=since, valid_until=until),))
        assert isinstance(one.choose(ask(), conditions()), Choice) is held


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


def test_a_model_of_the_price_list_may_be_asked_for_without_being_in_the_registry() -> None:
    """What the price list knows is served with every capability assumed, unless its provider is disabled."""
    for enabled in (True, False):
        registry = Registry({"p": Provider("p", "openai", enabled=enabled)})
        made = Router(registry, lambda provider, name, day: (provider, name) == ("p", "listed")).choose(
            ask(model="p/listed", needs=frozenset({"image"})), conditions()
        )
        assert isinstance(made, Choice) is enabled


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


def order_by(strategies: tuple[Any, ...], asked_for: dict[str, Any], around: Conditions, **tiers: Any) -> list[str]:
    """The order of three targets `a`, `b`, `c` by these strategies."""
    route = Route("r", tuple(Target(f"p/{name}") for name in "abc"), strategies=strategies)
    known = [model(name, tier=tiers.get(name, "balanced")) for name in "abc"]
    return names(router(*known, routes=(route,)).choose(ask(**asked_for), around))


def test_strategies_put_first_what_they_are_named_for() -> None:
    """Each strategy alone orders three models as its line of the table says."""
    tiers = {"a": "powerful", "b": "cheap", "c": "balanced"}
    assert order_by(("complexity",), {"characters": 100}, conditions(), **tiers) == ["b", "c", "a"]
    assert order_by(("complexity",), {"characters": 5_000}, conditions(), **tiers) == ["c", "a", "b"]
    assert order_by(("complexity",), {"characters": 9_000}, conditions(), **tiers) == ["a", "c", "b"]
    how = conditions(a=Standing("suspect"), c=Standing("healthy"))
    assert order_by(("health",), {}, how) == ["c", "b", "a"]
    cost = conditions({"a": None, "b": 2_000, "c": 1_000})
    assert order_by(("cost",), {}, cost) == ["c", "b", "a"]
    fast = conditions({"b": 3, "a": 9}, a=Standing(p50_ms=100), b=Standing(p50_ms=900))
    assert order_by(("latency",), {}, fast) == ["a", "b", "c"]
    assert order_by(("latency",), {"priority": "batch"}, fast) == ["c", "b", "a"]
    good = conditions(a=Standing(success_rate=0.5), b=Standing(success_rate=0.99))
    assert order_by(("success_rate",), {}, good) == ["b", "c", "a"]


def test_near_figures_tie_and_the_next_strategy_decides() -> None:
    """Two models a tenth apart in cost are equal there, so the faster one comes first."""
    around = conditions({"a": 105, "b": 100, "c": 1_000}, a=Standing(p50_ms=100), b=Standing(p50_ms=900))
    assert order_by(("cost", "latency"), {}, around) == ["a", "b", "c"]
    assert order_by(("latency", "cost"), {}, around) == ["a", "b", "c"]
    twice = replace(around, bound=lambda one: {"a": 200, "b": 100, "c": 1_000}[one.name])
    assert order_by(("cost", "latency"), {}, twice) == ["b", "a", "c"]


def test_the_last_resort_is_the_least_bad() -> None:
    """A resting model is tried before one with an open breaker before an unhealthy one; of equals, the first one back."""
    resting, sooner = Standing(resting_until=NOON + 9), Standing(resting_until=NOON + 5)
    opened, sick = Standing(breaker_open_until=NOON + 1), Standing("unhealthy")
    for how, chosen in (
        ({"a": sick, "b": opened, "c": resting}, "c"), ({"a": sick, "b": opened, "c": sick}, "b"),
        ({"a": resting, "b": sooner, "c": sick}, "b"), ({"a": opened, "b": Standing("suspect"), "c": resting}, "b"),
    ):  # fmt: skip
        assert order_by(("health",), {}, conditions(**how)) == [chosen]


def test_a_provider_out_of_service_takes_its_models_with_it() -> None:
    """What holds of the provider holds of each of its models."""
    route = Route("r", (Target("p/a"), Target("q/b")))
    one = router(model("a"), Model("q", "b"), routes=(route,))
    assert names(one.choose(ask(), Conditions(lambda _: 1, {"p": Standing("unhealthy")}))) == ["b"]
    healthy = Conditions(lambda _: 1, {"p": Standing("healthy"), "p/a": Standing(resting_until=NOON + 1)})
    assert names(one.choose(ask(), healthy)) == ["b"]


@given(
    st.integers(0, 100_000),
    st.integers(0, 100_000),
    st.sampled_from(["python", "javascript", "java", "rust", "cpp", None]),
)
def test_a_longer_request_is_never_less_complex(one: int, other: int, language: str | None) -> None:
    """The score is from 0 to 1 and rises with the length."""
    scores = [complexity(length, language=language, task="cv_draft", tools=True) for length in sorted((one, other))]
    assert 0 <= scores[0] <= scores[1] <= 1


@pytest.mark.parametrize(
    ("length", "language", "score", "tier"),
    [
        (3_749, "python", 0.29992, "cheap"), (3_750, "python", 0.3, "balanced"), (50_000, "Python", 0.8, "powerful"),
        (7_000, "java", 0.7, "balanced"), (7_001, "java", 0.7001, "powerful"), (5_000, "javascript", 0.45, "balanced"),
        (10_000, "cpp", 1.0, "powerful"), (5_000, "rust", 0.55, "balanced"), (2_000, "german", 0.2, "cheap"),
    ],
)  # fmt: skip
def test_the_score_of_code_is_length_times_the_language(length: int, language: str, score: float, tier: str) -> None:
    """The published formula, at its edges; a language of people is plain text."""
    found = complexity(length, language=language)
    assert found == pytest.approx(score)
    assert tier_for(found) == tier


def test_the_nearest_tier_is_next_and_of_two_the_stronger() -> None:
    """A stand-in is as near as there is."""
    assert [sorted(TIERS, key=lambda tier: misfit(wanted, tier)) for wanted in TIERS] == [
        ["cheap", "balanced", "powerful"], ["balanced", "powerful", "cheap"], ["powerful", "balanced", "cheap"],
    ]  # fmt: skip


def test_what_a_request_needs_is_read_from_it() -> None:
    """Images, tools, schemas and streams ask for models that have them, and each adds to the estimate of tokens."""
    plain = asked(request("word " * 300), 100, NOON)
    assert (plain.needs, plain.max_output_tokens, plain.characters) == (frozenset({"text"}), 100, 1_500)
    assert 375 <= plain.input_tokens <= 600
    part = {**request()["messages"][0]["content"][0], "type": "image", "text": None, "data": b"x" * 10}
    rich = request(
        messages=[{"role": "user", "content": [part]}],
        tools=[{"name": "look", "description": None, "parameters": "{}"}],
        parameters={**request()["parameters"], "response_format": "{}", "reasoning_effort": "low"},
        stream=True,
        tags={"language": "rust"},
    )
    seen = asked(rich, 100, NOON)
    assert seen.needs == {"text", "image", "tools", "structured_output", "reasoning", "streaming"}
    assert seen.input_tokens > 1_600
    assert seen.language == "rust"
