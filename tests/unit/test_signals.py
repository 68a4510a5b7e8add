"""How calls go: what may be called meanwhile, and what it comes to in the eyes of all workers."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agents.signals import FRESH_US, MOST, REST_US, Signals
from core.alerts import health_changed, registry_refused
from core.health import Calls, ProviderHealth
from core.signals import LEAST_FOR_P95, Signal, calls_of, p95, standings
from core.standing import Standing
from schemas.codec import Codec
from schemas.events import LlmAlert
from tests.stack.sink_world import usage

SECOND = 1_000_000
NOW = 1_795_258_680_000_000


class World:
    """One worker's signals, and a clock that the test sets."""

    def __init__(self) -> None:
        self.now = NOW
        self.signals = Signals("worker-1", lambda: self.now)

    def call(
        self, code: str | None = None, retry_after_ms: int | None = None, cut_short: bool = False, streamed: bool = False,
        **changes: Any,
    ) -> LlmAlert | None:  # fmt: skip
        """A call that ends now after a second, with this error or an answer."""
        fact = usage(
            random.Random(1), **{
                "provider": "openai", "model": "gpt-5", "credential_id": None, "credential_owner": "platform",
                "error_code": code, "status": "failed" if code else "succeeded", "started_at": self.now - SECOND,
                "finished_at": self.now, "provider_us": SECOND, **changes,
            }
        )  # fmt: skip
        return self.signals.ended(fact, retry_after_ms, cut_short, streamed)

    def free(self, credential_id: str | None = None, model: str = "gpt-5") -> bool:
        return self.signals.may_begin("openai", model, credential_id)


def test_a_breaker_that_opens_is_told_once_and_only_of_its_deployment() -> None:
    """Five failures keep the model's calls with that key back; other keys and models go on, and one alert says so."""
    world = World()
    alerts = [world.call("provider_unavailable", credential_id="key-1") for _ in range(6)]
    told = [alert for alert in alerts if alert is not None]
    assert [(alert["kind"], alert["subject"]) for alert in told] == [("breaker_open", "openai/gpt-5")]
    assert "provider_unavailable" in told[0]["message"]
    assert Codec().decode("LlmAlert", Codec().encode("LlmAlert", told[0])) == told[0]
    assert not world.free("key-1")
    assert world.signals.out_until("openai", "gpt-5", "key-1") == NOW + 30 * SECOND
    assert world.free("key-2") and world.free("key-1", "gpt-4")
    assert world.signals.states() == {("openai", "gpt-5"): "open"}


def test_a_trial_that_fails_is_no_new_alert_and_one_that_succeeds_is_told_once() -> None:
    """The trouble was told when it began; after a good trial everything may be called again, and an alert says so."""
    world = World()
    for _ in range(5):
        world.call("provider_timeout")
    for code, freed in (("provider_timeout", False), (None, True)):
        world.now += 31 * SECOND
        assert world.signals.out_until("openai", "gpt-5") is None
        assert world.free() and not world.free()
        # Another key is picked while this one is tried.
        assert world.signals.out_until("openai", "gpt-5") == world.now + 60 * SECOND
        world.now += SECOND
        told = world.call(code)
        assert (told is not None) is freed
        assert world.free() is freed
    assert told is not None and (told["kind"], told["subject"]) == ("breaker_closed", "openai/gpt-5")
    assert world.signals.out_until("openai", "gpt-5") is None
    assert Codec().decode("LlmAlert", Codec().encode("LlmAlert", told)) == told
    assert world.call() is None and world.call("provider_timeout") is None


def test_a_rate_limit_rests_the_key_as_long_as_it_said() -> None:
    """`Retry-After` holds to the microsecond, for that key alone; without one there is a short rest."""
    world = World()
    assert world.call("provider_rate_limited", retry_after_ms=12_000, credential_id="key-1") is None
    assert not world.free("key-1")
    assert world.free("key-2")
    world.now += 12 * SECOND - 1
    assert not world.free("key-1")
    world.now += 1
    assert world.free("key-1")
    world.call("provider_rate_limited", credential_id="key-1")
    assert world.signals.out_until("openai", "gpt-5", "key-1") == world.now + REST_US
    assert world.signals.told_until("openai", "gpt-5", "key-1") == world.now


def test_impatient_callers_do_not_take_a_provider_from_all() -> None:
    """Time-outs that the requests' own deadlines made open nothing."""
    world = World()
    for _ in range(50):
        world.call("provider_timeout", cut_short=True)
    assert world.free()
    assert world.signals.told() == []


def test_a_tenants_own_key_speaks_for_that_tenant_only() -> None:
    """Its limits and failures hold its own calls back and are told to nobody."""
    world = World()
    for _ in range(5):
        world.call("provider_unavailable", credential_id="theirs", credential_owner="tenant")
    assert not world.free("theirs")
    assert world.signals.told() == []


def test_what_is_told_is_about_the_last_minutes() -> None:
    """Good and bad calls and the median of the good ones' times; older calls no longer count."""
    world = World()
    for seconds in (1, 2, 9):
        world.call(provider_us=seconds * SECOND)
    world.call("provider_connection", provider_us=30 * SECOND)
    (told,) = world.signals.told()
    assert (told.good, told.bad, told.p50_us, told.at, told.bad_at) == (3, 1, 2 * SECOND, NOW, NOW)
    world.now += FRESH_US
    assert world.signals.told() == []
    world.call("provider_rate_limited", retry_after_ms=2_000 * FRESH_US // SECOND)
    world.now += FRESH_US
    (told,) = world.signals.told()
    assert (told.good, told.bad, told.resting_until) == (0, 0, world.now + FRESH_US)


def test_the_p95_is_of_first_tokens_where_answers_are_streamed() -> None:
    """Streamed calls count with their first token, others with their answer, and neither below twenty calls."""
    world = World()
    for tenth in range(1, LEAST_FOR_P95):
        world.call(provider_us=tenth * SECOND)
        world.call(streamed=True, first_token_us=tenth * 100_000, provider_us=90 * SECOND)
    (told,) = world.signals.told()
    assert (told.answer_p95_us, told.first_token_p95_us) == (None, None)
    world.call(provider_us=100 * SECOND)
    world.call(streamed=True, first_token_us=100 * SECOND)
    (told,) = world.signals.told()
    assert (told.answer_p95_us, told.first_token_p95_us) == (19 * SECOND, 1_900_000)
    world.now += FRESH_US
    assert world.signals.told() == []


def test_a_call_that_was_broken_off_for_being_late_counts_as_late() -> None:
    """Hedging does not take the slow calls out of the p95 that it goes by; of the share of good calls they are no part."""
    world = World()
    for _ in range(90):
        world.call(provider_us=SECOND)
    for _ in range(10):
        world.call("pipeline_superseded", provider_us=7 * SECOND)
    (told,) = world.signals.told()
    assert (told.answer_p95_us, told.good, told.bad) == (7 * SECOND, 90, 0)


@given(st.lists(st.integers(0, 1_000), min_size=LEAST_FOR_P95, max_size=300))
def test_the_p95_is_the_least_time_that_95_percent_are_within(times: list[int]) -> None:
    """At least 95 % of the times are at most the p95, and fewer are below it."""
    found = p95(times)
    assert found is not None
    assert sum(time <= found for time in times) * 100 >= len(times) * 95 > sum(time < found for time in times) * 100


def test_models_without_end_are_forgotten_oldest_first() -> None:
    """Callers that name a new model each time take a bounded amount of memory."""
    world = World()
    for number in range(MOST + 10):
        world.call(model=f"model-{number}")
    names = [signal.model for signal in world.signals.told()]
    assert len(names) == MOST
    assert names[0] == "model-10"


def signal(**changes: Any) -> Signal:
    """What a worker says of a model that does well."""
    fields: dict[str, Any] = dict(
        provider="p", model="m", credential_id="", owner="w1", good=10, bad=0, p50_us=100_000, open_until=None,
        resting_until=None, at=NOW,
    )  # fmt: skip
    return Signal(**{**fields, **changes})


def test_the_most_cautious_worker_is_believed_and_the_first_free_key_counts() -> None:
    """Of one key the latest end holds; a model with two keys is out only until the first of them is back."""
    one_key = [signal(open_until=5), signal(owner="w2", open_until=9), signal(owner="w3")]
    assert standings({}, one_key)["p/m"].breaker_open_until == 9
    one = [signal(credential_id="k1", open_until=5), signal(credential_id="k1", owner="w2", open_until=9)]
    two = [*one, signal(credential_id="k2", resting_until=7)]
    found = standings({}, two, {"p": ["k1", "k2"]})["p/m"]
    assert (found.breaker_open_until, found.resting_until) == (None, 7)


def test_a_key_that_nobody_has_used_yet_is_free_and_one_that_is_gone_does_not_count() -> None:
    """A second key keeps its model in service from the moment it is added; the environment's no longer matters then."""
    limited = [
        signal(resting_until=7),
        signal(credential_id="k1", open_until=9),
        signal(credential_id="gone", open_until=3),
    ]
    for credentials, out in ((["k1"], 9), (["k1", "k2"], None)):
        assert standings({}, limited, {"p": credentials})["p/m"].breaker_open_until == out
    assert standings({}, limited)["p/m"].resting_until == 7


def test_figures_are_those_of_all_calls() -> None:
    """Success is a share of all workers' calls; the median leans to the worker with more of them."""
    found = standings({}, [signal(good=30, bad=10, p50_us=100_000), signal(owner="w2", good=10, bad=0, p50_us=900_000)])
    assert found["p/m"] == Standing(p50_ms=100, success_rate=0.8)
    slower = [
        signal(answer_p95_us=5_000),
        signal(owner="w2", answer_p95_us=7_000, first_token_p95_us=2_000),
        signal(owner="w3"),
    ]
    assert (standings({}, slower)["p/m"].answer_p95_ms, standings({}, slower)["p/m"].first_token_p95_ms) == (7, 2)
    several = [
        signal(good=1, bad=2, bad_at=NOW),
        signal(model="n", bad=5, bad_at=NOW - 1),
        signal(provider="q", bad_at=NOW + 1),
    ]
    assert calls_of("p", several) == Calls(11, 7, NOW)


@given(st.lists(st.builds(signal, owner=st.text("ab", max_size=2), credential_id=st.sampled_from(["", "k"]),
                          open_until=st.none() | st.integers(1, 9), resting_until=st.none() | st.integers(1, 9))))  # fmt: skip
def test_the_order_in_which_workers_are_heard_does_not_matter(signals: list[Signal]) -> None:
    """The same signals make the same standings."""

    def until(found: dict[str, Standing]) -> dict[str, int]:
        return {name: max(one.breaker_open_until or 0, one.resting_until or 0) for name, one in found.items()}

    assert until(standings({}, signals)) == until(standings({}, reversed(signals)))


def test_a_provider_has_the_health_of_its_checks() -> None:
    """Checks speak of providers, calls of models."""
    found = standings({"p": ProviderHealth("unhealthy")}, [signal()])
    assert (found["p"].health, found["p/m"].health) == ("unhealthy", "unknown")


def test_only_leaving_and_coming_back_is_an_alert() -> None:
    """A provider that turns suspect, or is checked for the first time, is told to nobody."""
    states = {name: ProviderHealth(name, changed_at=NOW) for name in ("unknown", "healthy", "suspect", "unhealthy")}
    told = {
        (before, after): alert["kind"]
        for before, one in states.items() for after, other in states.items()
        if (alert := health_changed("p", one, other)) is not None
    }  # fmt: skip
    out = {(before, "unhealthy"): "provider_unhealthy" for before in ("unknown", "healthy", "suspect")}
    back = {("unhealthy", after): "provider_healthy" for after in ("unknown", "healthy", "suspect")}
    assert told == out | back


def test_a_change_of_health_that_is_told_twice_is_one_alert() -> None:
    """It is told before it is kept, and again where that failed: the id follows from the change, whatever the time."""
    was = ProviderHealth("unhealthy", changed_at=NOW)
    first, second = (health_changed("p", was, ProviderHealth("healthy", changed_at=NOW + later)) for later in (60, 120))
    other = health_changed("p", replace(was, changed_at=NOW + 5), ProviderHealth("healthy", changed_at=NOW + 60))
    assert first is not None and second is not None and other is not None
    assert first["alert_id"] == second["alert_id"] != other["alert_id"]


def test_workers_that_refuse_one_registry_raise_one_alert() -> None:
    """At their own times; other problems are another alert."""
    one, two, other = (registry_refused(*of) for of in ((["a"], NOW), (["a"], NOW + SECOND), (["b"], NOW)))
    assert one["alert_id"] == two["alert_id"] != other["alert_id"]
