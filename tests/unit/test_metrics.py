"""What the metrics of a worker promise to whoever stores them: few series, none missing at first, nothing invented."""

from __future__ import annotations

import random
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from agents.model_list import RESULTS
from config.monitoring import metrics_page
from config.settings import Settings
from core.errors import CODES
from core.outcome import Drop, Emit, Reject
from core.standing import Standing
from schemas.events import Tokens
from sinks.metrics import SinkMetrics
from sinks.rows import FACTS
from streams.metrics import MOST_MODELS, Metrics
from tests.promtool import promtool
from tests.stack.sink_world import usage


def samples(metrics: Metrics | SinkMetrics, name: str) -> dict[tuple[str, ...], float]:
    """The samples of one name by the values of their labels, in the order of the labels' names."""
    text = metrics_page(metrics.registry, "")[0].decode()
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


def fact(**changes: Any) -> Any:
    return usage(random.Random(1), **changes)


def test_models_without_end_make_no_series_without_end() -> None:
    """Callers that name a new model each time fill a bounded number of series; every call is still counted."""
    metrics = Metrics()
    for number in range(3 * MOST_MODELS):
        metrics.calls.ended(fact(model=f"model-{number}"))
    counts = samples(metrics, "gen_ai_client_operation_duration_seconds_count")
    assert len(counts) == MOST_MODELS + 1
    assert sum(counts.values()) == 3 * MOST_MODELS


def test_a_call_that_a_crash_cut_off_has_no_time_no_tokens_and_no_cost() -> None:
    """What nobody knows of a lost call is not shown as zero; that it was made is counted."""
    metrics = Metrics()
    nothing = dict.fromkeys(Tokens.__annotations__)
    metrics.calls.ended(
        fact(
            status="outcome_unknown", error_code="provider_outcome_unknown", tokens=nothing, provider_us=None,
            cost_nano_usd=None, cost_status="unknown",
        )
    )  # fmt: skip
    assert samples(metrics, "gen_ai_client_operation_duration_seconds_count") == {}
    assert samples(metrics, "gen_ai_client_token_usage_count") == {}
    assert samples(metrics, "millstream_spend_usd_total") == {}
    assert samples(metrics, "millstream_provider_calls_total") == {("unknown", "openai", "outcome_unknown"): 1}


def test_tokens_and_spend_are_sums_of_what_was_reported() -> None:
    """Classes that were reported are added up by direction, a zero included, and money is in USD."""
    metrics = Metrics()
    tokens = dict.fromkeys(Tokens.__annotations__) | {"input_uncached": 5, "cache_read": 7, "output_text": 0}
    metrics.calls.ended(fact(model="gpt-5", tokens=tokens, cost_nano_usd=1_500_000_000))
    call = ("chat", "openai", "gpt-5")
    assert samples(metrics, "gen_ai_client_token_usage_sum") == {(*call, "input"): 12, (*call, "output"): 0}
    assert samples(metrics, "millstream_spend_usd_total") == {("openai",): 1.5}


def test_what_alerts_look_for_begins_at_zero() -> None:
    """Dead letters, errors, retries, spend and calls have their series before the first event, so that a rise is seen."""
    metrics = Metrics()
    metrics.add_stage("admit", lambda: 3, lambda: 1.5)
    metrics.add_lane("openai", lambda: 256, lambda: 2)
    assert set(samples(metrics, "millstream_records_total").values()) == {0}
    assert samples(metrics, "millstream_dead_letters_total")["pipeline_internal", "admit"] == 0
    errors = samples(metrics, "millstream_provider_errors_total")
    assert {code for code, _ in errors} == {code for code in CODES if code.startswith("provider_")}
    assert samples(metrics, "millstream_retries_total") == {
        ("openai", reason): 0 for reason in ("retry", "redelivery", "fallback", "repair", "cached", "hedge")
    }
    assert samples(metrics, "millstream_spend_usd_total") == {("openai",): 0}
    assert samples(metrics, "millstream_provider_calls_total")["unpriced", "openai", "succeeded"] == 0
    assert samples(metrics, "millstream_in_flight") == {("admit",): 3}
    assert samples(metrics, "millstream_oldest_unacknowledged_seconds") == {("admit",): 1.5}
    assert samples(metrics, "millstream_lane_slots_in_use") == {("openai",): 2}


def test_a_choice_is_counted_by_model_and_route_and_its_complexity_where_it_was_asked_for() -> None:
    """A request without a score adds to the count of choices and not to the distribution of scores."""
    metrics = Metrics()
    metrics.routing.chosen("google", "gemini-2.5-flash", "extraction", 0.42)
    metrics.routing.chosen("google", "gemini-2.5-flash", None, None)
    assert samples(metrics, "orchestrator_provider_selection_total") == {
        ("gemini-2.5-flash", "google", "extraction"): 1, ("gemini-2.5-flash", "google", ""): 1,
    }  # fmt: skip
    assert samples(metrics, "orchestrator_complexity_score_sum") == {(): 0.42}
    assert samples(metrics, "orchestrator_complexity_score_bucket")["0.4",] == 0


def test_what_the_response_cache_saved_is_counted_from_zero_on() -> None:
    """A hit counts also where nobody knows what its answer had cost."""
    metrics = Metrics()
    names = "millstream_cache_hits_total", "millstream_cache_saved_usd_total"
    assert [samples(metrics, name) for name in names] == [{(): 0}, {(): 0}]
    for saved in (2_500_000, None):
        metrics.routing.cached(fact(reason="cached", saved_nano_usd=saved))
    assert [samples(metrics, name) for name in names] == [{(): 2}, {(): 0.0025}]


def test_health_and_breakers_are_shown_as_they_stand() -> None:
    """A provider counts as healthy until it is unhealthy, a closed breaker is shown too, and one that is gone is not."""
    metrics = Metrics()
    metrics.add_lane("openai", lambda: 1, lambda: 0)
    assert samples(metrics, "millstream_provider_healthy") == {("openai",): 1}
    well, ill = Standing("suspect"), Standing("unhealthy")
    metrics.routing.standings_heard(
        {"openai": ill, "google": well, "openai/gpt-5": well}, {("openai", "gpt-5"): "open"}
    )
    assert samples(metrics, "millstream_provider_healthy") == {("openai",): 0, ("google",): 1}
    assert samples(metrics, "millstream_breaker_state") == {("gpt-5", "openai"): 2}
    metrics.routing.standings_heard({}, {("openai", "gpt-5-mini"): "closed"})
    assert samples(metrics, "millstream_breaker_state") == {("gpt-5-mini", "openai"): 0}


def test_health_checks_begin_at_zero_and_are_counted_by_what_they_found() -> None:
    """Every result of every provider has its series before the first check."""
    metrics = Metrics()
    metrics.routing.add_checks(["openai"])
    assert samples(metrics, "provider_health_checks_total") == {("openai", result): 0 for result in RESULTS}
    metrics.routing.health_checked("openai", "timeout")
    assert samples(metrics, "provider_health_checks_total")["openai", "timeout"] == 1


def test_outcomes_have_words_and_a_rejection_is_a_dead_letter() -> None:
    """Each outcome of a stage is counted under its word."""
    metrics = Metrics()
    for outcome in (Emit(()), Emit(()), Drop("seen"), Reject("pipeline_internal", "It failed.")):
        metrics.record_done("admit", outcome)
    assert samples(metrics, "millstream_records_total") == {
        ("emitted", "admit"): 2, ("dropped", "admit"): 1, ("rejected", "admit"): 1,
    }  # fmt: skip
    assert samples(metrics, "millstream_dead_letters_total") == {("pipeline_internal", "admit"): 1}


def test_prometheus_has_nothing_to_say_against_the_page() -> None:
    """Names, types and help texts are as Prometheus' own checker wants them."""
    metrics = Metrics()
    metrics.add_stage("admit", lambda: 3, lambda: 1.5)
    metrics.add_lane("openai", lambda: 256, lambda: 2)
    metrics.calls.ended(fact())
    metrics.routing.chosen("google", "gemini-2.5-flash", "extraction", 0.42)
    metrics.routing.health_checked("openai", "good")
    metrics.routing.standings_heard({"openai": Standing("healthy")}, {("openai", "gpt-5"): "open"})
    for registry in (metrics.registry, SinkMetrics(Settings(kafka_bootstrap="127.0.0.1:9")).registry):
        promtool("check", "metrics", text=metrics_page(registry, "")[0].decode())


def test_every_table_of_the_sink_has_its_series_from_the_start() -> None:
    """Rows and bytes begin at 0 for bodies as for facts, retries for both steps, lost records for every topic."""
    metrics = SinkMetrics(Settings(kafka_bootstrap="127.0.0.1:9"))
    facts = {(fact.table,) for fact in FACTS}
    for name, labels in (
        ("millstream_sink_rows_total", {*facts, ("bodies",)}),
        ("millstream_sink_bytes_total", {*facts, ("bodies",)}),
        ("millstream_sink_retries_total", {("stored",), ("committed",)}),
        ("millstream_sink_lost_records_total", facts),
    ):
        assert samples(metrics, name) == dict.fromkeys(labels, 0.0)
