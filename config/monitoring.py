"""What every long-running process shows to monitoring: a registry of its own, the page Prometheus reads, readiness as JSON."""

from __future__ import annotations

import json

from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import choose_encoder

# The time at which a counter was made doubles the number of series, and no rule or dashboard reads it.
disable_created_metrics()  # type: ignore[no-untyped-call]


def new_registry() -> CollectorRegistry:
    """A registry with the metrics of the process itself (CPU, memory, open files) and no others yet."""
    registry = CollectorRegistry(auto_describe=True)
    ProcessCollector(registry=registry)
    return registry


def metrics_page(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """The metrics in the format that an `Accept` header asks for, and their content type."""
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


def readiness(problem: str | None) -> tuple[int, bytes]:
    """HTTP status and JSON body of `/readyz`: 200 without a problem, else 503 with the sentence that names it."""
    body = {"ready": problem is None, "reason": problem or "Partitions are assigned and the stores answer."}
    return (503 if problem else 200), json.dumps(body).encode()


def port_refused(host: str, port: int, why: OSError) -> str:
    """The sentence for a metrics port that cannot be listened on."""
    return (
        f"Metrics cannot be served on {host}:{port} ({why.strerror}); "
        "set MILLSTREAM_METRICS_PORT to a free port, or to 0 for none."
    )
