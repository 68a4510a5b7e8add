"""What a worker tells Prometheus about its provider calls and their lanes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from core.errors import CODES
from schemas.events import AttemptReason, CallStatus, CostStatus, LlmUsage

#: Bucket bounds as the conventions advise them: seconds of a call, tokens of a call.
CALL_SECONDS = tuple(0.01 * 2**n for n in range(14))
CALL_TOKENS = tuple(4**n for n in range(14))

INPUT = ("input_uncached", "cache_read", "cache_write_5m", "cache_write_1h", "input_audio")
OUTPUT = ("output_text", "reasoning", "output_audio")


class CallMetrics:
    """Provider calls and lanes; `bounded` gives the label of a model, of which there are only so many."""

    def __init__(self, registry: CollectorRegistry, bounded: Callable[[str], str]) -> None:
        self._bounded = bounded
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
        self._slots = Gauge(
            "millstream_lane_slots_in_use", "Slots of a provider's lane that are taken.", ("provider",), registry=registry,
        )  # fmt: skip
        self._slots_most = Gauge(
            "millstream_lane_slots", "Slots of a provider's lane.", ("provider",), registry=registry,
        )  # fmt: skip

    def add_lane(self, provider: str, slots: Callable[[], float], in_use: Callable[[], float]) -> None:
        """Show how many slots a provider's lane has and uses; both are asked when Prometheus reads the page."""
        self._slots_most.labels(provider).set_function(slots)
        self._slots.labels(provider).set_function(in_use)
        self._spend(provider)
        for status in get_args(CallStatus):
            for cost_status in get_args(CostStatus):
                self._calls(provider, status, cost_status)
        for reason in get_args(AttemptReason)[1:]:
            self._retries(provider, reason)
        for code in CODES:
            if code.startswith("provider_"):
                self._errors(provider, code)

    def ended(self, fact: LlmUsage) -> None:
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
