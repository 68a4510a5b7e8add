"""One local stack for the tests that need one: Apache Kafka, ClickHouse, the simulator, and every worker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from cli.running import Running, running

# A busy machine is no reason for a property to fail.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

#: Short times, so that a test of a crash need not wait for a patient production setting.
QUICK = {
    "MILLSTREAM_LEASE_SECONDS": "3",
    "MILLSTREAM_SESSION_TIMEOUT_SECONDS": "6",
    "MILLSTREAM_REBALANCE_TIMEOUT_SECONDS": "8",
    "MILLSTREAM_DRAIN_SECONDS": "4",
    "MILLSTREAM_COMMIT_INTERVAL_SECONDS": "0.3",
    "MILLSTREAM_BACKOFF_BASE_SECONDS": "0.05",
    "MILLSTREAM_SINK_BATCH_SECONDS": "0.2",
    "MILLSTREAM_HEALTH_CHECK_SECONDS": "5",
    "MILLSTREAM_MAX_REQUEST_BYTES": "200000",
    "MILLSTREAM_MODELS": '{"openai": ["gpt-unpriced"], "openai-compatible": ["*"], "echo": ["*"]}',
}


@pytest.fixture(scope="session")
def pipeline() -> Iterator[Running]:
    """The whole pipeline, running; tests share it and use request ids of their own."""
    with running(environment=QUICK) as run:
        yield run
