"""One pipeline for the tests that need no other: Apache Kafka, ClickHouse, the simulator, and every worker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cli.running import Running, running
from tests.conftest import QUICK


@pytest.fixture(scope="package")
def pipeline() -> Iterator[Running]:
    """The whole pipeline, running; tests share it and use request ids of their own. It is gone when they are through."""
    with running(environment=QUICK) as run:
        yield run
