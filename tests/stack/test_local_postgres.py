"""The local PostgreSQL keeps what it committed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from local.postgres import PostgresServer


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A running server, in a folder that the account it runs as under root can enter."""
    folder = Path(tempfile.mkdtemp(prefix="millstream-test-"))
    folder.chmod(0o711)
    server = PostgresServer(folder / "postgres")
    server.start()
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.mark.parametrize("ending", ["kill", "stop"])
def test_committed_rows_survive(server: PostgresServer, ending: str) -> None:
    """After kill -9 or stop, start brings back the same address and every committed row, and no other."""
    engine = create_engine(server.url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text(f"CREATE TABLE t_{ending} (n INT)"))
        connection.execute(text(f"INSERT INTO t_{ending} SELECT generate_series(1, 100)"))
    open_at_the_end = engine.connect()
    open_at_the_end.execute(text(f"INSERT INTO t_{ending} VALUES (101)"))
    before = server.url
    getattr(server, ending)()
    open_at_the_end.invalidate()
    server.start()
    assert server.url == before
    with engine.connect() as connection:
        assert connection.execute(text(f"SELECT count(*) FROM t_{ending}")).scalar_one() == 100


def test_a_wrong_password_is_refused(server: PostgresServer) -> None:
    """Another user of the machine does not get in over the loopback."""
    url = make_url(server.url).set(password="wrong")
    with pytest.raises(OperationalError, match="password authentication failed"):
        create_engine(url, poolclass=NullPool).connect()


def test_commits_are_synced_to_disk(server: PostgresServer) -> None:
    """Speed is not bought with durability."""
    with create_engine(server.url, poolclass=NullPool).connect() as connection:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            assert connection.execute(text(f"SHOW {setting}")).scalar_one() == "on"
