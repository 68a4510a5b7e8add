"""Statements that SQLAlchemy spells once a database: inserts for a key that may be taken already, and locks in an order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Column, Select, String, Table, collate
from sqlalchemy.dialects import postgresql, sqlite


def inserts(table: Table) -> dict[str, Any]:
    """An insert into a table by the name of the dialect, such as `db.dialect.name`."""
    return {"postgresql": postgresql.insert(table), "sqlite": sqlite.insert(table)}


def upserts(table: Table, changes: Callable[[Any], dict[str, Any]] | None = None) -> dict[str, Any]:
    """The same where a row with its key is changed: by default every other column becomes that of the new row.

    `changes` gives the columns to set from the columns of the new row.
    """

    def others(new: Any) -> dict[str, Any]:
        return {column.name: new[column.name] for column in table.columns if not column.primary_key}

    key = list(table.primary_key.columns)
    return {
        name: insert.on_conflict_do_update(index_elements=key, set_=(changes or others)(insert.excluded))
        for name, insert in inserts(table).items()
    }


def locking(query: Select[Any], *columns: Column[Any]) -> dict[str, Select[Any]]:
    """The query with its rows locked in the order of these columns as Python sorts their values, by the name of the dialect.

    PostgreSQL sorts by the collation of the database otherwise, most of which put "a" before "B"
    (https://www.postgresql.org/docs/current/collation.html#COLLATION-MANAGING).
    """
    by_code_point = [collate(column, "C") if isinstance(column.type, String) else column for column in columns]
    return {
        "postgresql": query.order_by(*by_code_point).with_for_update(),
        "sqlite": query.order_by(*columns).with_for_update(),
    }
