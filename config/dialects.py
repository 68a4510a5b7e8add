"""Inserts that say what happens where the key is taken already, which SQLAlchemy spells once a database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Table
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
