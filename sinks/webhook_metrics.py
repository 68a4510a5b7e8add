"""What the sender of webhooks tells Prometheus: what was taken, what was not, and which webhook is waited for."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import Counter

from config.monitoring import new_registry


class WebhookMetrics:
    """The metrics of one process; `registry` holds them. Webhooks are named by their hosts."""

    def __init__(self, hosts: Iterable[str]) -> None:
        self.registry = registry = new_registry()
        self._problems: dict[str, str] = {}
        self._deliveries = Counter(
            "millstream_webhook_deliveries_total", "Alerts that were sent to a webhook, by whether it took them.",
            ("host", "outcome"), registry=registry,
        )  # fmt: skip
        for host in hosts:
            for outcome in ("taken", "failed"):
                self._deliveries.labels(host, outcome)

    def taken(self, host: str) -> None:
        """A webhook took an alert."""
        self._deliveries.labels(host, "taken").inc()
        self._problems.pop(host, None)

    def passed_over(self, host: str) -> None:
        """What stood on the topic is no alert, and does not wait any more."""
        self._problems.pop(host, None)

    def failed(self, host: str, why: str) -> None:
        """A webhook did not take an alert; `why` is a sentence."""
        self._deliveries.labels(host, "failed").inc()
        self._problems[host] = why

    def problem(self) -> str | None:
        """Why an alert waits, None where none does."""
        return next(iter(self._problems.values()), None)
