"""The simulator, and databases for the contracts that hold on both: SQLite and PostgreSQL."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from config.database import create_tables, open_database
from local.processes import Child, wait_until
from tests.contract.book import Book
from tests.contract.simulator import Simulator
from tests.databases import postgres_server


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of a server that all tests share."""
    with postgres_server() as server:
        yield server.url


@pytest.fixture(params=["sqlite", "postgres"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """A database of the test's own without a table."""
    if request.param == "sqlite":
        engine = open_database(f"sqlite:///{tmp_path}/ledger.db")
    else:
        name = f"test_{uuid.uuid4().hex}"
        server = open_database(request.getfixturevalue("postgres"))
        with server.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
            db.execute(text(f"CREATE DATABASE {name}"))
        engine = open_database(server.url.set(database=name).render_as_string(hide_password=False))
        server.dispose()
    yield engine
    engine.dispose()


@pytest.fixture
def engine(empty: Engine) -> Engine:
    """A database of the test's own with all tables."""
    create_tables(empty)
    return empty


@pytest.fixture
def on_sqlite(tmp_path: Path) -> Iterator[Engine]:
    """An SQLite database of the test's own with all tables, beside that of `engine`."""
    made = open_database(f"sqlite:///{tmp_path}/lite.db")
    create_tables(made)
    yield made
    made.dispose()


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a simulator process that answers at once."""
    log = tmp_path_factory.mktemp("simulator") / "simulator.log"
    command = [sys.executable, "-m", "local.simulator", "--port", "0", "--latency-ms", "0"]
    child = Child(command, log_path=log, name="the simulator", cwd=Path(__file__).parents[2])
    try:
        wait_until(lambda: "http://" in log.read_text(), 60, "the simulator's address", child)
        yield log.read_text().split()[-1]
        assert child.running, log.read_text()
    finally:
        child.stop(5)
    assert "Traceback" not in log.read_text()


@pytest.fixture
def simulator(address: str) -> Iterator[Simulator]:
    """The simulator with an empty account, and every provider well before and after."""
    made = Simulator(address)
    made.reset()
    made.release()
    yield made
    made.release()


@pytest.fixture
def book(engine: Engine) -> Book:
    return Book(engine)
