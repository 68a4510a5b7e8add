"""What a worker tells Prometheus about the registry, the choice of models, and the health of providers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from agents.model_list import RESULTS
from core.breaker import State
from core.standing import Standing
from schemas.events import LlmUsage

COMPLEXITY = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
STATES = get_args(State)


class RoutingMetrics:
    """The registry, choices and health; `bounded` gives the label of a model, of which there are only so many."""

    def __init__(self, registry: CollectorRegistry, bounded: Callable[[str], str]) -> None:
        self._bounded = bounded
        self._registry_age = Gauge(
            "millstream_registry_snapshot_age_seconds", "How long ago the registry was last read and could be used.",
            registry=registry,
        )  # fmt: skip
        self._selections = cache(Counter(
            "orchestrator_provider_selection_total", "Requests by the model that was chosen first, and the route that chose it.",
            ("provider", "model", "route"), registry=registry,
        ).labels)  # fmt: skip
        self._complexity = Histogram(
            "orchestrator_complexity_score", "How hard requests are, from 0 to 1, where a route's strategy asked for it.",
            registry=registry, buckets=COMPLEXITY,
        )  # fmt: skip
        self._cache_hits = Counter(
            "millstream_cache_hits_total", "Requests that the response cache answered.", registry=registry,
        )  # fmt: skip
        self._cache_saved = Counter(
            "millstream_cache_saved_usd_total", "What the calls had cost whose answers the response cache gave again, in USD, as far as it is known.",
            registry=registry,
        )  # fmt: skip
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

    def add_provider(self, provider: str) -> None:
        """Show a provider, which counts as healthy until it is found not to be."""
        self._healthy.labels(provider).set(1)

    def add_checks(self, providers: Iterable[str]) -> None:
        """Show the health checks of these providers, which this process may come to make."""
        for provider in providers:
            for result in RESULTS:
                self._health_checks(provider, result)

    def add_registry(self, age: Callable[[], float]) -> None:
        """The registry of this process, by the seconds since it was last read and could be used."""
        self._registry_age.set_function(age)

    def chosen(self, provider: str, model: str, route: str | None, complexity: float | None) -> None:
        """A request was admitted, and this model shall answer it first."""
        self._selections(provider, self._bounded(model), route or "").inc()
        if complexity is not None:
            self._complexity.observe(complexity)

    def cached(self, fact: LlmUsage) -> None:
        """The response cache answered a request, of which this is the usage event."""
        self._cache_hits.inc()
        self._cache_saved.inc((fact["saved_nano_usd"] or 0) / 1e9)

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
