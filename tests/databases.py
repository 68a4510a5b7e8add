"""A PostgreSQL server of the tests' own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local.postgres import PostgresServer


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """A running server, stopped at the end."""
    with tempfile.TemporaryDirectory() as folder:
        # PostgreSQL refuses root; the account that it runs as in its place has to reach its data.
        Path(folder).chmod(0o755)
        server = PostgresServer(Path(folder) / "data")
        server.start()
        yield server
        server.stop()
