"""What holds for all tests: the settings of short waits, and which tests run in one process."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

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


class ByPipeline(LoadScopeScheduling):  # type: ignore[misc]
    """Gives a process the tests of a file together, and those of a pipeline that several files share."""

    def _split_scope(self, nodeid: str) -> str:
        return "one_pipeline" if "/one_pipeline/" in nodeid else nodeid.partition("::")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """How tests are given to the processes of `pytest -n`: each stack that runs takes a tenth of a core, also at rest."""
    return ByPipeline(config, log)
