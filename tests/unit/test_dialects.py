"""Statements that are spelled once a database."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite

from config.dialects import locking
from config.limit_models import COUNTERS


def test_rows_are_locked_in_the_order_of_python_whatever_the_collation() -> None:
    """PostgreSQL is told to sort texts by code point; SQLite does, and has no rows to lock."""
    found = locking(select(COUNTERS.c.used), COUNTERS.c.account, COUNTERS.c.begins)
    postgres = str(found["postgresql"].compile(dialect=postgresql.dialect()))
    assert postgres.endswith('ORDER BY counters.account COLLATE "C", counters.begins FOR UPDATE')
    lite = str(found["sqlite"].compile(dialect=sqlite.dialect()))
    assert lite.endswith("ORDER BY counters.account, counters.begins")
