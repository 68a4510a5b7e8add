"""The gate on which work on requests and changes of what binds it wait for each other: many work at once, one changes alone.

Whoever works on requests enters with the statement that locks the first of them, and so before it holds anything; then no
change can wait for one that waits for it. In SQLite a transaction that writes is alone without it.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, func, select

#: Any number that nothing else in the database locks.
_KEY = 6_155_361_807
#: A condition that enters the gate before any row is looked at (a subquery of its own runs once, before the rest), by dialect.
ENTERED: dict[str, tuple[ColumnElement[bool], ...]] = {
    "sqlite": (),
    "postgresql": (select(func.pg_advisory_xact_lock_shared(_KEY)).scalar_subquery().is_not(None),),
}


def enter(db: Connection) -> None:
    """Enter before work that begins with no request of the ledger."""
    if db.dialect.name == "postgresql":
        db.execute(select(func.pg_advisory_xact_lock_shared(_KEY)))


def close(db: Connection) -> None:
    """Wait until nobody works on requests, and let nobody begin until the end of the transaction."""
    if db.dialect.name == "postgresql":
        db.execute(select(func.pg_advisory_xact_lock(_KEY)))
