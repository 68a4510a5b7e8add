"""Open the ledger's database, SQLite or PostgreSQL, with the settings that its transactions rely on."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from config.settings import SettingsError
from config.upgrade import upgrade

SQLITE_BUSY_SECONDS = 60.0
SQLITE_PAUSE_SECONDS = 0.001
_READING = "millstream_reading"
#: serialization_failure, deadlock_detected, lock_not_available (https://www.postgresql.org/docs/current/errcodes-appendix.html).
_IN_THE_WAY = ("40001", "40P01", "55P03")


def open_database(url: str) -> Engine:
    """An engine for a database URL, `sqlite:///path` or `postgresql+psycopg://…`; `SettingsError` for any other."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise SettingsError(
            "Setting MILLSTREAM_DATABASE_URL is not a database URL; "
            "give one such as sqlite:///millstream.db or postgresql+psycopg://host/name."
        ) from None
    if parsed.drivername in ("postgresql", "postgresql+psycopg"):
        return create_engine(
            parsed.set(drivername="postgresql+psycopg"), pool_pre_ping=True, pool_size=4, hide_parameters=True
        )
    if parsed.get_backend_name() != "sqlite":
        raise SettingsError(
            f"Setting MILLSTREAM_DATABASE_URL names {parsed.drivername}; use sqlite or postgresql+psycopg."
        )
    engine = create_engine(parsed, connect_args={"isolation_level": None}, hide_parameters=True)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def create_tables(engine: Engine) -> None:
    """Bring the database to the tables of this version; safe to run again. `SettingsError` for a newer version's database."""
    upgrade(engine)


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A connection on which everything read is of one moment, while others go on writing; it is for reading only."""
    options: dict[str, Any] = {_READING: True}
    if engine.dialect.name == "postgresql":
        options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    with engine.connect().execution_options(**options) as db:
        yield db


def in_the_way(error: SQLAlchemyError) -> bool:
    """Whether other transactions were in the way, so that the same can succeed when it is tried again."""
    why = getattr(error, "orig", None)
    busy = (getattr(why, "sqlite_errorcode", None) or 0) & 0xFF == sqlite3.SQLITE_BUSY
    return busy or getattr(why, "sqlstate", None) in _IN_THE_WAY


def _prepare_sqlite(connection: Any, _: Any) -> None:
    # A write-ahead log lets other processes read during a write; NORMAL keeps every commit through a kill of the process
    # (https://sqlite.org/pragma.html#pragma_synchronous).
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=0", "temp_store=MEMORY"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(db: Connection) -> None:
    """Take the write lock, asking for it every millisecond.

    SQLite's own waiting pauses longer each time, up to 100 ms, and whoever asks first in between gets the lock
    (https://sqlite.org/src/file/src/main.c, sqliteDefaultBusyCallback): with three writers, waits of a second were seen.
    """
    connection: Any = db.connection.dbapi_connection
    if db.get_execution_options().get(_READING):
        # Deferred: a snapshot of the write-ahead log, without the lock (https://sqlite.org/isolation.html).
        connection.execute("BEGIN")
        return
    ends = time.monotonic() + SQLITE_BUSY_SECONDS
    while time.monotonic() < ends:
        try:
            connection.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                break
        time.sleep(SQLITE_PAUSE_SECONDS)
    # Once more through SQLAlchemy, whose exception is the one that callers know.
    db.exec_driver_sql("BEGIN IMMEDIATE")
