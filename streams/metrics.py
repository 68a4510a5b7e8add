"""What a worker tells Prometheus about its stages and its ledger, its provider calls and its routing.

Names follow OpenTelemetry's conventions for generative AI where these have one
(https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/), in Prometheus' spelling. Beside the few accounts with the
most money no label holds a user, a tenant or an id: what a single one of them does is a question for ClickHouse.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from prometheus_client import Counter, Gauge, Histogram

from config.monitoring import new_registry
from core.errors import CODES
from core.outcome import Drop, Emit, Fail, Outcome, Reject
from streams.call_metrics import CallMetrics
from streams.quota_metrics import QuotaMetrics
from streams.routing_metrics import RoutingMetrics

TRANSACTION_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
TRANSACTION_ENTRIES = (1, 2, 5, 10, 20, 50, 100, 200, 500)

#: Callers may name any model of a compatible server; beyond this many a process counts the further ones as one.
MOST_MODELS = 50
OTHER_MODELS = "other"

OUTCOMES: dict[type[Outcome], str] = {Emit: "emitted", Drop: "dropped", Reject: "rejected", Fail: "failed"}
#: Why a stage rejects a record.
REASONS = tuple(code for code in CODES if code == "caller_undecodable" or code.startswith("pipeline_"))


class Metrics:
    """The metrics of one worker process; `registry` holds them, those of `calls`, `routing` and `quota` as well.

    A series that could appear with its first event begins at 0 instead, so that `increase()` sees that event.
    """

    def __init__(self) -> None:
        self.registry = registry = new_registry()
        self._models: set[str] = set()
        self.calls = CallMetrics(registry, self._bounded)
        self.routing = RoutingMetrics(registry, self._bounded)
        self.quota = QuotaMetrics(registry)
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
        self._transaction_seconds = Histogram(
            "millstream_ledger_transaction_seconds", "Time of one transaction of the ledger, its commit included.",
            registry=registry, buckets=TRANSACTION_SECONDS,
        )  # fmt: skip
        self._transaction_entries = Histogram(
            "millstream_ledger_batch_entries", "Entries that shared one transaction of the ledger.",
            registry=registry, buckets=TRANSACTION_ENTRIES,
        )  # fmt: skip

    def add_stage(self, stage: str, in_flight: Callable[[], float], oldest: Callable[[], float]) -> None:
        """Show a stage; the functions are asked when Prometheus reads the page."""
        self._in_flight.labels(stage).set_function(in_flight)
        self._oldest.labels(stage).set_function(oldest)
        for outcome in OUTCOMES.values():
            self._records(stage, outcome)
        for reason in REASONS:
            self._dead_letters(stage, reason)

    def add_lane(self, provider: str, slots: Callable[[], float], in_use: Callable[[], float]) -> None:
        """Show a provider, and how many slots its lane has and uses; both are asked when Prometheus reads the page."""
        self.calls.add_lane(provider, slots, in_use)
        self.routing.add_provider(provider)

    def record_done(self, stage: str, outcome: Outcome) -> None:
        """A stage has dealt with a record, and the broker has what follows from it."""
        self._records(stage, OUTCOMES[type(outcome)]).inc()
        if isinstance(outcome, Reject):
            self._dead_letters(stage, outcome.code).inc()

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
