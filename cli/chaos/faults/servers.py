"""Faults of the servers: the broker, ClickHouse and the ledger's database."""

from __future__ import annotations

import signal
from collections.abc import Iterator

from sqlalchemy import text

from cli.chaos.faults.entry import fault, only
from cli.chaos.world import StackServer, World
from config.database import open_database

RESTARTS = 3
KAFKA, CLICKHOUSE, LEDGER = only("kafka"), only("clickhouse"), only("ledger")
#: Bounds in seconds. While the broker or the ledger is away, nothing goes on; the other stages go on without ClickHouse.
SHORT, LONG = (0.5, 6), (1, 8)


def _without_postgres(world: World) -> str | None:
    return None if world.postgres else "the ledger is in SQLite, which is no server"


def _bring_back(server: StackServer) -> None:
    """Start a server again; on a busy machine that may take longer than its own patience."""
    for tries_left in reversed(range(RESTARTS)):
        try:
            server.start()
            return
        except (RuntimeError, TimeoutError):
            if not tries_left:
                raise


@fault("kafka-kill", "The broker is killed (SIGKILL) and started again with its data.", KAFKA, SHORT)
@fault("clickhouse-kill", "ClickHouse is killed (SIGKILL) and started again with its data.", CLICKHOUSE, LONG)
@fault(
    "ledger-kill", "PostgreSQL is killed (SIGKILL) and started again with its data.", LEDGER, SHORT, _without_postgres
)
def _kill(world: World, target: str) -> Iterator[None]:
    server = world.server(target)
    server.kill()
    try:
        yield
    finally:
        _bring_back(server)


@fault("kafka-stop", "The broker is shut down in order and started again.", KAFKA, SHORT)
@fault("clickhouse-stop", "ClickHouse is shut down in order and started again.", CLICKHOUSE, LONG)
@fault("ledger-stop", "PostgreSQL is shut down (fast) and started again.", LEDGER, SHORT, _without_postgres)
def _stop(world: World, target: str) -> Iterator[None]:
    server = world.server(target)
    server.stop()
    try:
        yield
    finally:
        _bring_back(server)


@fault("kafka-freeze", "The broker stands still (SIGSTOP, SIGCONT).", KAFKA, (1, 10))
@fault("clickhouse-freeze", "ClickHouse stands still (SIGSTOP, SIGCONT).", CLICKHOUSE, LONG)
def _freeze(world: World, target: str) -> Iterator[None]:
    child = world.server(target).child
    assert child is not None
    child.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        child.signal(signal.SIGCONT)


@fault(
    "ledger-lock",
    "Somebody holds the whole ledger in a transaction: SQLite's write lock, PostgreSQL's LOCK TABLE.",
    LEDGER,
    LONG,
)
def _ledger_lock(world: World, _: str) -> Iterator[None]:
    engine = open_database(world.run.settings.database_url)
    try:
        # On SQLite the engine begins every transaction with the write lock.
        with engine.begin() as db:
            if engine.dialect.name == "postgresql":
                db.execute(text("LOCK TABLE requests, attempts, accounts, workers IN ACCESS EXCLUSIVE MODE"))
            yield
    finally:
        engine.dispose()
