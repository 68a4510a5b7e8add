"""What a worker tells Prometheus about its stages, its provider calls and its ledger.

Names follow OpenTelemetry's conventions for generative AI where these have one
(https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/), in Prometheus' spelling. No label holds a user, a tenant
or an id: what a single one of them does is a question for ClickHouse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import get_args

from prometheus_client import Counter, Gauge, Histogram

from agents.model_list import RESULTS
from config.monitoring import new_registry
from core.breaker import State
from core.errors import CODES
from core.outcome import Drop, Emit, Fail, Outcome, Reject
from core.standing import Standing
from schemas.events import AttemptReason, CallStatus, CostStatus, LlmUsage

#: Bucket bounds as the conventions advise them: seconds of a call, tokens of a call.
CALL_SECONDS = tuple(0.01 * 2**n for n in range(14))
CALL_TOKENS = tuple(4**n for n in range(14))
TRANSACTION_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
TRANSACTION_ENTRIES = (1, 2, 5, 10, 20, 50, 100, 200, 500)

#: Callers may name any model of a compatible server; beyond this many a process counts the further ones as one.
MOST_MODELS = 50
OTHER_MODELS = "other"

COMPLEXITY = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
STATES = get_args(State)

INPUT = ("input_uncached", "cache_read", "cache_write_5m", "cache_write_1h", "input_audio")
OUTPUT = ("output_text", "reasoning", "output_audio")
OUTCOMES: dict[type[Outcome], str] = {Emit: "emitted", Drop: "dropped", Reject: "rejected", Fail: "failed"}
#: Why a stage rejects a record.
REASONS = tuple(code for code in CODES if code == "caller_undecodable" or code.startswith("pipeline_"))


class Metrics:
    """The metrics of one worker process; `registry` holds them.

    A series that could appear with its first event begins at 0 instead, so that `increase()` sees that event.
    """

    def __init__(self) -> None:
        self.registry = registry = new_registry()
        call = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model")
        self._tokens = cache(Histogram(
            "gen_ai_client_token_usage", "Tokens of a provider call, as the provider reported them.",
            (*call, "gen_ai_token_type"), registry=registry, buckets=CALL_TOKENS,
        ).labels)  # fmt: skip
        self._seconds = cache(Histogram(
            "gen_ai_client_operation_duration_seconds", "Time from the start of a provider call to its end.",
            (*call, "error_type"), registry=registry, buckets=CALL_SECONDS,
        ).labels)  # fmt: skip
        self._calls = cache(Counter(
            "millstream_provider_calls_total", "Provider calls that ended, by how, and by what is known of their cost.",
            ("provider", "status", "cost_status"), registry=registry,
        ).labels)  # fmt: skip
        self._spend = cache(Counter(
            "millstream_spend_usd_total", "Known cost of provider calls, in USD; the exact sums are in ClickHouse.",
            ("provider",), registry=registry,
        ).labels)  # fmt: skip
        self._errors = cache(Counter(
            "millstream_provider_errors_total", "Provider calls that failed, by error code.",
            ("provider", "code"), registry=registry,
        ).labels)  # fmt: skip
        self._retries = cache(Counter(
            "millstream_retries_total", "Provider calls beyond the first one of their request.",
            ("provider", "reason"), registry=registry,
        ).labels)  # fmt: skip
        self._records = cache(Counter(
            "millstream_records_total", "Records that a stage has dealt with.", ("stage", "outcome"), registry=registry,
        ).labels)  # fmt: skip
        self._dead_letters = cache(Counter(
            "millstream_dead_letters_total", "Records that became dead letters.", ("stage", "reason"), registry=registry,
        ).labels)  # fmt: skip
        self._in_flight = Gauge(
            "millstream_in_flight", "Records that a stage has taken and not finished.", ("stage",), registry=registry,
        )  # fmt: skip
        self._oldest = Gauge(
            "millstream_oldest_unacknowledged_seconds", "Age of the oldest record in flight.", ("stage",), registry=registry,
        )  # fmt: skip
        self._slots = Gauge(
            "millstream_lane_slots_in_use", "Slots of a provider's lane that are taken.", ("provider",), registry=registry,
        )  # fmt: skip
        self._slots_most = Gauge(
            "millstream_lane_slots", "Slots of a provider's lane.", ("provider",), registry=registry,
        )  # fmt: skip
        self._transaction_seconds = Histogram(
            "millstream_ledger_transaction_seconds", "Time of one transaction of the ledger, its commit included.",
            registry=registry, buckets=TRANSACTION_SECONDS,
        )  # fmt: skip
        self._transaction_entries = Histogram(
            "millstream_ledger_batch_entries", "Entries that shared one transaction of the ledger.",
            registry=registry, buckets=TRANSACTION_ENTRIES,
        )  # fmt: skip
        self._complexity = Histogram(
            "orchestrator_complexity_score", "How hard requests are, from 0 to 1, where a route's strategy asked for it.",
            registry=registry, buckets=COMPLEXITY,
        )  # fmt: skip
        self._registry_age = Gauge(
            "millstream_registry_snapshot_age_seconds", "How long ago the registry was last read and could be used.",
            registry=registry,
        )  # fmt: skip
        self._selections = cache(Counter(
            "orchestrator_provider_selection_total", "Requests by the model that was chosen first, and the route that chose it.",
            ("provider", "model", "route"), registry=registry,
        ).labels)  # fmt: skip
        self._health_checks = cache(Counter(
            "provider_health_checks_total", "Checks of providers, by what they found.", ("provider", "result"), registry=registry,
        ).labels)  # fmt: skip
        self._healthy = Gauge(
            "millstream_provider_healthy", "1 while a provider gets calls, 0 while it is unhealthy.", ("provider",),
            registry=registry,
        )  # fmt: skip
        self._breakers = Gauge(
            "millstream_breaker_state", "Circuit breakers of this process, the worst of a model: 0 closed, 1 half-open, 2 open.",
            ("provider", "model"), registry=registry,
        )  # fmt: skip
        self._models: set[str] = set()

    def add_stage(self, stage: str, in_flight: Callable[[], float], oldest: Callable[[], float]) -> None:
        """Show a stage; the functions are asked when Prometheus reads the page."""
        self._in_flight.labels(stage).set_function(in_flight)
        self._oldest.labels(stage).set_function(oldest)
        for outcome in OUTCOMES.values():
            self._records(stage, outcome)
        for reason in REASONS:
            self._dead_letters(stage, reason)

    def add_lane(self, provider: str, slots: int, in_use: Callable[[], float]) -> None:
        """Show a provider's lane of `slots` slots; `in_use` is asked when Prometheus reads the page."""
        self._slots_most.labels(provider).set(slots)
        self._slots.labels(provider).set_function(in_use)
        self._healthy.labels(provider).set(1)
        self._spend(provider)
        for status in get_args(CallStatus):
            for cost_status in get_args(CostStatus):
                self._calls(provider, status, cost_status)
        for reason in get_args(AttemptReason)[1:]:
            self._retries(provider, reason)
        for code in CODES:
            if code.startswith("provider_"):
                self._errors(provider, code)

    def add_checks(self, providers: Iterable[str]) -> None:
        """Show the health checks of these providers, which this process may come to make."""
        for provider in providers:
            for result in RESULTS:
                self._health_checks(provider, result)

    def record_done(self, stage: str, outcome: Outcome) -> None:
        """A stage has dealt with a record, and the broker has what follows from it."""
        self._records(stage, OUTCOMES[type(outcome)]).inc()
        if isinstance(outcome, Reject):
            self._dead_letters(stage, outcome.code).inc()

    def call_ended(self, fact: LlmUsage) -> None:
        """A provider call ended, and the ledger knows."""
        provider, error = fact["provider"], fact["error_code"]
        call = ("chat", provider, self._bounded(fact["model"]))
        tokens = fact["tokens"]
        for kind, classes in (("input", INPUT), ("output", OUTPUT)):
            reported = [count for name in classes if (count := tokens[name]) is not None]  # type: ignore[literal-required]
            if reported:
                self._tokens(*call, kind).observe(sum(reported))
        if fact["provider_us"] is not None:
            self._seconds(*call, error or "").observe(fact["provider_us"] / 1e6)
        self._calls(provider, fact["status"], fact["cost_status"]).inc()
        if fact["cost_nano_usd"]:
            self._spend(provider).inc(fact["cost_nano_usd"] / 1e9)
        if error:
            self._errors(provider, error).inc()
        if fact["attempt"] > 1:
            self._retries(provider, fact["reason"]).inc()

    def add_registry(self, age: Callable[[], float]) -> None:
        """The registry of this process, by the seconds since it was last read and could be used."""
        self._registry_age.set_function(age)

    def chosen(self, provider: str, model: str, route: str | None, complexity: float | None) -> None:
        """A request was admitted, and this model shall answer it first."""
        self._selections(provider, self._bounded(model), route or "").inc()
        if complexity is not None:
            self._complexity.observe(complexity)

    def health_checked(self, provider: str, result: str) -> None:
        """A provider was checked."""
        self._health_checks(provider, result).inc()

    def standings_heard(self, standings: Mapping[str, Standing], breakers: Mapping[tuple[str, str], State]) -> None:
        """The health of the providers as all workers know it, and the circuit breakers of this one, by provider and model."""
        for name, standing in standings.items():
            if "/" not in name:
                self._healthy.labels(name).set(standing.health != "unhealthy")
        self._breakers.clear()
        for (provider, model), state in breakers.items():
            self._breakers.labels(provider, self._bounded(model)).set(STATES.index(state))

    def transaction_done(self, entries: int, seconds: float) -> None:
        """A transaction of the ledger was committed."""
        self._transaction_entries.observe(entries)
        self._transaction_seconds.observe(seconds)

    def _bounded(self, model: str) -> str:
        if model in self._models:
            return model
        if len(self._models) >= MOST_MODELS:
            return OTHER_MODELS
        self._models.add(model)
        return model
