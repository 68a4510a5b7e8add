"""What a registry must be to be used, and the YAML file that it is kept in."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from config.registry import complete, from_environment
from config.registry_entries import Contents, RegistryInvalid
from config.registry_file import from_yaml, to_yaml
from config.settings import PROVIDER_NAMES, Settings, settings_in
from core.registry import Model, Provider, Registry, Route, Target
from core.registry_rules import check

NOW = 1_795_258_680_000_000
OPENAI = Provider("openai", "openai")
GPT = Model("openai", "gpt-x", ("fast",))
CLAUDE = Model("anthropic", "claude-x")
GOOD = Registry(
    {"openai": OPENAI, "anthropic": Provider("anthropic", "anthropic")},
    (GPT, CLAUDE),
    (Route("chat", (Target("fast"), Target("anthropic/claude-x"))),),
)


def given(**environment: str) -> Settings:
    """The settings of a process with this environment and nothing else."""
    return settings_in({"MILLSTREAM_CONFIG": "/nonexistent.toml", **environment})


def degrading(share: int | None, *models: str) -> Route:
    return Route("r", (Target("fast"), Target("anthropic/claude-x")), degrade_from=share, degrade_to=models)


def problems(registry: Registry) -> str:
    return "\n".join(check(registry, PROVIDER_NAMES).problems)


def with_route(route: Route, *more: Route) -> Registry:
    return replace(GOOD, routes=(route, *more))


def with_model(model: Model) -> Registry:
    return replace(GOOD, models=(model, CLAUDE))


def with_provider(provider: Provider) -> Registry:
    return replace(GOOD, providers={**GOOD.providers, provider.name: provider})


def test_a_good_registry_has_nothing_wrong() -> None:
    """A registry whose names all lead somewhere has no problem and no warning."""
    found = check(GOOD, PROVIDER_NAMES)
    assert (found.problems, found.warnings) == ((), ())


@pytest.mark.parametrize(
    ("registry", "said"),
    [
        (with_provider(Provider("acme", "azure")), "unknown kind 'azure'"),
        (with_provider(Provider("Acme/1", "openai")), "Provider name 'Acme/1' cannot be used"),
        (with_provider(Provider("google", "openai")), "its name stands for the kind google"),
        (with_provider(Provider("own", "openai-compatible")), "needs a base URL"),
        (with_provider(Provider("own", "openai", "ftp://x")), "a base URL that is none"),
        (with_provider(Provider("own", "openai", "http://[::1")), "a base URL that is none"),
        (with_provider(Provider("own", "openai", concurrency=0)), "has concurrency 0"),
        (with_provider(Provider("own", "openai", concurrency=2**31)), "has concurrency 2147483648"),
        (with_provider(Provider("own", "openai", region="a\x00")), "a region that cannot be used"),
        (with_provider(replace(OPENAI, default=True)), ""),
        (with_model(replace(GPT, weight=0)), "has weight 0"),
        (with_model(replace(GPT, name="g p")), "Model name 'g p' cannot be used"),
        (with_model(replace(GPT, context_tokens=0)), "has context_tokens 0"),
        (with_model(replace(GPT, default_output_tokens=0)), "has default_output_tokens 0"),
        (with_model(replace(GPT, provider="acme")), "at the provider acme, which does not exist"),
        (with_model(replace(GPT, aliases=("fast", "anthropic/claude-x"))), "may not lead in a circle"),
        (with_model(replace(GPT, aliases=("fast", "openai/gpt-x"))), "may not lead in a circle"),
        (with_model(replace(GPT, price_override={"input": Decimal(1)})), "a price for 'input'"),
        (with_model(replace(GPT, price_override={"output_text": Decimal(-1)})), "has the price -1"),
        (with_model(replace(GPT, price_override={"output_text": Decimal("1e60")})), "has the price 1E+60"),
        (with_route(Route("r", ())), "no target"),
        (with_route(Route("r", (Target("gpt-4"),))), "gpt-4 is unknown"),
        (with_route(Route("r", (Target("fast", 0),))), "Route r for fast has weight 0"),
        (with_route(Route("r", (Target("fast"),), share=Decimal("100.1"))), "a share of 100.1 percent"),
        (with_route(Route("r", (Target("fast"),), share=Decimal("33.3333333"))), "up to 6 decimals"),
        (with_route(Route("r", (Target("fast"),), share=Decimal(-1))), "a share of -1 percent"),
        (with_route(Route("r", (Target("fast"),), valid_from=2, valid_until=2)), "not after its start"),
        (with_route(Route("r", (Target("fast"),), fall_back_on=frozenset({"oops"}))), "the unknown error 'oops'"),
        (with_route(Route("r", (Target("fast"),), max_attempts=0)), "max_attempts 0"),
        (with_route(Route("r", (Target("fast"),), cache_seconds=0)), "cache_seconds 0"),
        (with_route(Route("r", (Target("fast"),), precedence=2**31)), "has precedence 2147483648"),
        (with_route(Route("r", (Target("fast"),), plan="pro\x00")), "a plan that cannot be used"),
        (with_route(Route("a b", (Target("fast"),))), "Route name 'a b' cannot be used"),
        (with_route(Route("r", (Target("fast"),), task="")), "a task that cannot be used"),
        (with_route(degrading(0, "fast")), "Route r degrades from 0 percent on; it needs 1 to 100."),
        (with_route(degrading(101, "fast")), "Route r degrades from 101 percent on"),
        (with_route(degrading(1, "fast")), ""),
        (with_route(degrading(100, "fast")), ""),
        (with_route(degrading(80)), "degrades from 80 percent on and names no cheaper model"),
        (with_route(degrading(None, "fast")), "names fast to degrade to, but not from when on"),
        (with_route(degrading(80, "openai/gpt-x")), "degrades to openai/gpt-x, which is none of its targets"),
        (with_route(degrading(80, "fast", "anthropic/claude-x")), "degrades to all of its targets"),
    ],
)
def test_each_fault_is_a_sentence(registry: Registry, said: str) -> None:
    """Each way in which a registry can be wrong is one problem that names the value at fault; a default alone is none."""
    found = problems(registry)
    assert said in found
    assert bool(found) == bool(said)


def test_only_one_provider_is_the_default() -> None:
    """Two default providers are refused, both by name."""
    both = {name: replace(provider, default=True) for name, provider in GOOD.providers.items()}
    assert "openai, anthropic are all the default" in problems(replace(GOOD, providers=both))


def test_a_secret_in_an_address_is_not_repeated() -> None:
    """A base URL that carries a password is refused without saying it again."""
    for url in ("https://user:hunter2@host/v1", "https://host/v1?key=hunter2", "https://host/#hunter2"):
        found = problems(with_provider(Provider("own", "openai", url)))
        assert "keep keys out of it" in found and "hunter2" not in found


def test_a_route_may_lose_targets_but_not_all() -> None:
    """Disabled and unknown targets are a warning while another one is left, and a problem when none is."""
    route = Route("r", (Target("fast"), Target("anthropic/claude-x"), Target("openai/nothing")))
    disabled = replace(GOOD, routes=(route,), models=(replace(GPT, enabled=False), CLAUDE))
    found = check(disabled, PROVIDER_NAMES)
    assert not found.problems
    assert found.warnings == ("Route r goes past some of its targets: fast is disabled, openai/nothing is unknown.",)
    off = replace(
        disabled, providers={**GOOD.providers, "anthropic": Provider("anthropic", "anthropic", enabled=False)}
    )
    assert "anthropic/claude-x is at the disabled provider anthropic" in problems(off)
    assert not problems(replace(off, routes=(replace(route, enabled=False),)))


def test_shares_of_the_same_requests_add_up_to_100_at_most() -> None:
    """Routes alike at one precedence share 100 percent at any time; other precedences, requests and times are apart."""
    main, canary = (
        Route(name, (Target("fast"),), task="cv", share=Decimal(share)) for name, share in (("a", 95), ("b", 10))
    )
    assert "Routes a, b are for the same requests and take 105 percent" in problems(with_route(main, canary))
    for apart in (
        replace(canary, share=Decimal(5)), replace(canary, precedence=1), replace(canary, plan="pro"),
        replace(canary, enabled=False),
    ):  # fmt: skip
        assert not problems(with_route(main, apart))
    until, since = replace(main, valid_until=NOW), replace(canary, valid_from=NOW)
    assert not problems(with_route(until, since))
    assert "take 105 percent" in problems(with_route(until, replace(since, valid_from=NOW - 1)))


def test_shares_of_the_same_requests_go_by_one_field() -> None:
    """Half by user and half by tenant would leave a quarter out, which is a warning while both are in force."""
    users, tenants = (
        Route(name, (Target("fast"),), share=Decimal(50), sticky=sticky)
        for name, sticky in (("a", "user"), ("b", "tenant"))
    )
    (warning,) = check(with_route(users, tenants), PROVIDER_NAMES).warnings
    assert "Routes a, b are for the same requests and their shares go by tenant, user" in warning
    for fine in (replace(tenants, sticky="user"), replace(tenants, precedence=1), replace(tenants, enabled=False)):
        assert not check(with_route(users, fine), PROVIDER_NAMES).warnings


def test_a_route_that_hedges_at_one_provider_is_warned_of() -> None:
    """A hedge goes to another provider, so with the models of one alone nothing is ever hedged."""
    alone, apart = (
        Route("r", (Target("fast"),), hedge=True),
        Route("r", (Target("fast"), Target(CLAUDE.full_name)), hedge=True),
    )
    assert check(with_route(alone), PROVIDER_NAMES).warnings == (
        "Route r hedges, and all its models are at openai; name one of another provider.",
    )
    assert check(with_route(apart), PROVIDER_NAMES).warnings == ()
    assert check(with_route(replace(alone, hedge=False)), PROVIDER_NAMES).warnings == ()


def test_an_empty_database_is_the_environment() -> None:
    """Without anything registered, the providers served, the priced models and the default routes make a good registry."""
    registry = from_environment(given(), NOW)
    assert list(registry.providers) == ["openai", "anthropic", "google", "echo"]
    assert check(registry, PROVIDER_NAMES) == check(GOOD, PROVIDER_NAMES)
    models = {model.full_name: model for model in registry.models}
    assert {t.model for r in registry.routes for t in r.targets} == {"google/gemini-2.5-flash", "google/gemini-2.5-pro"}
    assert (
        models["openai/gpt-4o"].capabilities >= {"image", "tools"} and models["openai/gpt-4o"].context_tokens == 128_000
    )
    assert "openai/text-embedding-3-small" not in models and "google/claude-haiku-4-5" not in models
    assert len(registry.routes) == 13


def test_the_environment_names_the_fast_and_the_quality_model() -> None:
    """GEMINI_MODEL_FAST and GEMINI_MODEL_QUALITY decide what the default routes lead to, also for models without a price."""
    registry = from_environment(given(GEMINI_MODEL_FAST="gemini-9", GEMINI_MODEL_QUALITY="gemini-1.5-pro"), NOW)
    assert check(registry, PROVIDER_NAMES).warnings == ()
    led = {(route.task, route.plan): [target.model for target in route.targets] for route in registry.routes}
    assert led[("extraction", "*")] == led[("cv_draft", "paygo")] == ["google/gemini-9"]
    assert led[("cover_letter", "pro")] == ["google/gemini-1.5-pro"]


def test_what_is_registered_comes_first() -> None:
    """With a provider in the database only the database's serve; its models win; the default routes go where Google is."""
    own = Contents({name: Provider(name, "google", "https://eu.example/") for name in ("eu", "us")})
    registry = complete(own, given(), NOW)
    assert list(registry.providers) == ["eu", "us"] and registry.routes[0].targets[0].model == "eu/gemini-2.5-flash"
    us = {**own.providers, "us": replace(own.providers["us"], default=True)}
    assert complete(Contents(us), given(), NOW).routes[0].targets[0].model == "us/gemini-2.5-flash"
    mine = Model("eu", "gemini-2.5-flash", ("mine",), frozenset({"text"}), tier="powerful")
    assert mine in complete(replace(own, models={mine.full_name: mine}), given(), NOW).models
    assert complete(Contents({"openai": OPENAI}), given(), NOW).routes == ()
    off = Model("google", "gemini-2.5-pro", enabled=False)
    assert len(complete(Contents(models={off.full_name: off}), given(), NOW).routes) == 11


def test_a_route_may_name_a_model_that_only_a_pattern_knows() -> None:
    """A target that the settings' patterns or the price list allow is described; one that nobody knows is a problem."""
    environment = given(MILLSTREAM_OPENAI_COMPATIBLE_BASE_URL="http://127.0.0.1:8000/v1")
    targets = tuple(Target(m) for m in ("openai-compatible/llama", "openai/gpt-4o-2024-08-06", "openai/nobody"))
    registry = complete(Contents(routes={"r": Route("r", targets)}), environment, NOW)
    found = {model.full_name for model in registry.models}
    assert {"openai-compatible/llama", "openai/gpt-4o-2024-08-06"} <= found
    assert check(registry, PROVIDER_NAMES).warnings == (
        "Route r goes past some of its targets: openai/nobody is unknown.",
    )


FULL = Contents(
    {"eu": Provider("eu", "openai", "https://eu.example/v1", "eu-west-1", False, True, 12)},
    {
        "eu/org/model": Model(
            "eu", "org/model", ("a", "b"), frozenset({"tools", "text"}), 8_192, "cheap", False, 3,
            {"output_text": Decimal("0.30"), "input_uncached": Decimal(1)}, 2_000,
        )
    },
    {
        "r": Route(
            "r", (Target("a"), Target("eu/org/model", 3)), "pro", "cv_*", "acme", "gpt-*", -5, False,
            NOW, NOW + 1, Decimal("12.5"), "tenant", "weighted", ("cost", "latency"), "balanced",
            frozenset({"provider_invalid_request", "provider_auth"}), 4, 60, True, True,
        )
    },
)  # fmt: skip


def test_a_file_holds_everything_and_is_written_the_same_again() -> None:
    """Every field survives the way into YAML and back, and the text of what was read is the text that was read."""
    text = to_yaml(FULL)
    assert from_yaml(text) == FULL
    assert to_yaml(from_yaml(text)) == text
    assert from_yaml(to_yaml(Contents()), FULL) == Contents()


def test_a_section_that_is_left_out_stays_as_it_is() -> None:
    """A file of routes alone changes no provider, model or task; one that is written as empty empties its section."""
    brought = from_yaml("routes: {s: {targets: [a]}}", FULL)
    assert list(brought.routes) == ["s"]
    assert (brought.providers, brought.models, brought.tasks) == (FULL.providers, FULL.models, FULL.tasks)
    assert from_yaml("models: {}", FULL) == replace(FULL, models={})


def test_a_file_is_stable_and_short() -> None:
    """The order of entries does not change the text, and what is at its default is left out."""
    routes = {name: Route(name, (Target("fast"),)) for name in ("b", "a")}
    text = to_yaml(Contents(routes=routes))
    assert text == to_yaml(Contents(routes=dict(reversed(routes.items()))))
    assert (
        text
        == "providers: {}\nmodels: {}\nroutes:\n  a:\n    targets:\n    - fast\n  b:\n    targets:\n    - fast\ntasks: {}\n"
    )


def test_times_are_read_as_people_write_them() -> None:
    """A date, a time with a zone and one without, quoted or not, are the same moment in UTC."""
    for written in (
        "2026-12-01",
        "2026-12-01T00:00:00Z",
        "'2026-12-01T01:00:00+01:00'",
        "2026-12-01 00:00:00",
        "'2026-12-01'",
    ):
        contents = from_yaml(f"routes: {{r: {{targets: [a], valid_from: {written}}}}}")
        assert contents.routes["r"].valid_from == 1_796_083_200_000_000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("providers: {a: {kind: openai, colour: red}}", "Provider a has the unknown field 'colour'"),
        ("provider: {}", "unknown key 'provider'"),
        ("routes: {r: {targets: [{model: a, wait: 1}]}}", "unknown field 'wait'"),
        ("routes: {r: {targets: [a], sticky: moon}}", "Route r has a sticky that cannot be used"),
        ("routes: {r: {targets: [a], share: much}}", "Route r has a share that cannot be used"),
        ("routes: {r: {targets: [a], valid_from: soon}}", "Route r has a valid_from that is no time: 'soon'"),
        ("routes: {r: {targets: [a], name: s}}", "which its key already says"),
        ("routes: {r: [a]}", "Route r is no mapping"),
        ("routes: [a]", "routes is no mapping"),
        ("models: {gpt: {}}", "Model gpt is not PROVIDER/MODEL"),
        ("models: {a/b: {capabilities: [sight]}}", "Model a/b has a capabilities"),
        ("providers: {a: {kind: openai}, a: {kind: google}}", "'a' stands twice"),
        ("providers: {a: {kind: openai}", "no YAML"),
        ("- a", "no mapping"),
        ("", "The file is empty; write out what shall be empty, such as `providers: {}`."),
        ("# all gone\n", "The file is empty"),
        ("{}", "The file is empty"),
        ("[]", "no mapping"),
        ("providers:\n", "providers is no mapping of names to entries; write `providers: {}` to empty it"),
        ("providers: {a: !!python/object/apply:os.getcwd []}", "no YAML"),
        ("routes: {r: {targets: [a], valid_from: 2026-02-30}}", "day is out of range"),
        ("{{ registry }}: 1", "The key in line 1 is no text"),
        ("[" * 5_000, "no YAML"),
        ("routes: {r: {targets: [a], valid_until: '9999-12-31T23:59:59-12:00'}}", "is no time: '9999"),
    ],
)
def test_a_file_with_faults_is_refused_by_name(text: str, said: str) -> None:
    """Unknown keys, doubled keys and values of another type are refused with a sentence that names them."""
    with pytest.raises(RegistryInvalid) as refused:
        from_yaml(text)
    assert said in str(refused.value)


def test_every_fault_of_a_file_is_listed() -> None:
    """Several faults are refused together, so that one look at the list is enough."""
    with pytest.raises(RegistryInvalid) as refused:
        from_yaml("providers: {a: {}}\nmodels: {b: {}}\nroutes: {r: {targets: 3}}\nmore: 1")
    assert len(refused.value.problems) == 4
