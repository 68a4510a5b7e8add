"""A PostgreSQL server for the contracts that hold on both databases."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.postgres import PostgresServer


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """URL of a server of the module's own."""
    with tempfile.TemporaryDirectory() as folder:
        # PostgreSQL refuses root; the account that it runs as in its place has to reach its data.
        Path(folder).chmod(0o755)
        server = PostgresServer(Path(folder) / "data")
        server.start()
        yield server.url
        server.stop()
