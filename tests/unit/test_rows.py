"""The rows that events become, and the tables that hold them."""

from __future__ import annotations

import re
from typing import Any

import pytest

from schemas.avro import SCHEMAS
from schemas.events import Tokens
from sinks.migrations import migrations
from sinks.rows import DERIVED, FACTS, Fact, columns_of, values_of

TOKEN_CLASSES = tuple(Tokens.__annotations__)
FACT_IDS = [fact.table for fact in FACTS]


def leaves(schema: Any, named: dict[str, Any], owner: str, path: str = "") -> list[str]:
    """The dotted names of the fields of a schema that are not records themselves."""
    if isinstance(schema, list):
        schema = next(branch for branch in schema if branch != "null")
    schema = named.get(schema, schema) if isinstance(schema, str) else schema
    if not isinstance(schema, dict) or schema["type"] != "record" or f"{owner}.{path[:-1]}" in DERIVED:
        return [path[:-1]]
    named[f"millstream.v1.{schema['name']}"] = schema
    return [
        leaf for field in schema["fields"] for leaf in leaves(field["type"], named, owner, f"{path}{field['name']}.")
    ]


def migrated_columns(table: str) -> dict[str, str]:
    """The columns of a table after all migrations, with their types, read from the SQL text."""
    found: dict[str, str] = {}
    for migration in migrations():
        for statement in migration.statements:
            create = re.match(rf"CREATE TABLE IF NOT EXISTS `?{table}`?\n\(\n(.*?)\n\)\n", statement, re.DOTALL)
            lines = create[1].split("\n") if create else []
            if statement.startswith((f"ALTER TABLE {table} ", f"ALTER TABLE `{table}` ")):
                lines = re.findall(r"ADD COLUMN IF NOT EXISTS (.*?)(?: AFTER `\w+`)?(?:,\n|$)", statement, re.DOTALL)
            for line in lines:
                if column := re.match(r"\s*`(\w+)` (.+?)(?: DEFAULT .*?)?(?: CODEC\(.*\))?,?$", line):
                    found[column[1]] = column[2]
    return found


@pytest.mark.parametrize("fact", FACTS, ids=FACT_IDS)
def test_every_field_has_a_column(fact: Fact) -> None:
    """Every leaf of an event's schema is kept in at least one column."""
    kept = {column.field for column in columns_of(fact.record)}
    assert [leaf for leaf in leaves(SCHEMAS[fact.record], {}, fact.record) if leaf not in kept] == []


@pytest.mark.parametrize("fact", FACTS, ids=FACT_IDS)
def test_the_migrations_make_every_column(fact: Fact) -> None:
    """The migrations end at the tables that the Avro schemas ask for."""
    have = migrated_columns(fact.table)
    missing = {c.name: c.type for c in columns_of(fact.record) if have.get(c.name) != c.type}
    assert not missing, (
        f"Table {fact.table} has no such columns: {missing}. Add one migration to sinks/migrations/ with "
        "`ALTER TABLE … ADD COLUMN IF NOT EXISTS …`; `python -m sinks.tables` prints the column."
    )


def test_migrations_are_numbered_without_gaps() -> None:
    """Migrations count up from 1, so that one number says what a store has."""
    assert [migration.version for migration in migrations()] == list(range(1, len(migrations()) + 1))


def test_every_table_with_rows_remembers_tokens() -> None:
    """Facts and rollups all have a deduplication window, without which a repeated batch would count twice."""
    for migration in migrations():
        for statement in migration.statements:
            if statement.startswith("CREATE TABLE"):
                assert "non_replicated_deduplication_window = 10000" in statement


def test_nested_fields_null_strings_and_lengths() -> None:
    """A row flattens records, turns null strings into empty ones, keeps other nulls and keeps lengths of bodies only."""
    part = dict.fromkeys(("media_type", "url", "data", "tool_call_id", "tool_name", "tool_arguments"))
    event = {name["name"]: None for name in SCHEMAS["LlmResponse"]["fields"]} | {
        "request_id": "r-1",
        "tenant": "acme",
        "tags": {"team": "search"},
        "outcome": "completed",
        "decisions": [],
        "near_limits": [{"account": "/acme", "limit": "usd per day", "percent": 84}],
        "output": [{"type": "text", "text": "hello", **part}, {"type": "text", "text": "you", **part}],
        "tokens": dict.fromkeys(TOKEN_CLASSES) | {"input_uncached": 12, "cache_read": 0},
        "created_at": 1_700_000_000_000_000,
    }
    columns = values_of("LlmResponse", [event], "llm.responses.v1", 3, [41], ["id-1"])
    row = {c.name: values[0] for c, values in zip(columns_of("LlmResponse"), columns, strict=True)}
    assert (row["kafka_topic"], row["kafka_partition"], row["kafka_offset"], row["ce_id"]) == (
        "llm.responses.v1",
        3,
        41,
        "id-1",
    )
    assert (row["tenant"], row["user"], row["tags"], row["output_chars"]) == (
        "acme",
        "",
        {"team": "search"},
        8,
    )
    assert (row["near_limits_account"], row["near_limits_limit"], row["near_limits_percent"]) == (
        ["/acme"],
        ["usd per day"],
        [84],
    )
    assert (row["tokens_input_uncached"], row["tokens_cache_read"], row["tokens_reasoning"]) == (12, 0, None)
    assert (row["error_code"], row["error_retryable"], row["created_at"]) == ("", None, 1_700_000_000_000_000)
