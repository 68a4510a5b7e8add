"""The tables of the store: what they should be, and how an installation gets there.

`python -m sinks.tables` prints the fact tables as the Avro schemas have them today, to write the next migration from.
"""

from __future__ import annotations

import logging

from clickhouse_connect.driver.client import Client

from config.settings import Settings
from sinks.migrations import Migration, migrations
from sinks.rows import FACTS, POSITION, Column, Fact, columns_of
from sinks.writer import connect

LOG = logging.getLogger(__name__)

#: Inserts that ClickHouse remembers by their token, a table. A partition repeats its last one only.
DEDUPLICATION_WINDOW = 10_000

_ORDER = {
    "requests": ("tenant", "created_at", "request_id"),
    "responses": ("tenant", "created_at", "request_id"),
    "usage": ("tenant", "created_at", "request_id", "attempt"),
    "alerts": ("kind", "raised_at", "subject"),
    "dead_letters": ("topic", "failed_at", "partition", "offset"),
}


class SchemaBehind(RuntimeError):
    """The store has not been migrated to what this program writes."""

    @classmethod
    def at(cls, version: int) -> SchemaBehind:
        """The error for a store at `version`, with the command to run."""
        return cls(
            f"The ClickHouse schema is at version {version} and this program writes version {migrations()[-1].version}: "
            "run `millstream migrate` first."
        )


def column_sql(column: Column) -> str:
    """The column as a `CREATE TABLE` or an `ADD COLUMN` wants it, with its codec."""
    codec = "ZSTD(1)"
    if "DateTime64" in column.type or column.name == "kafka_offset":
        codec = "Delta(8), ZSTD(1)"
    return f"`{column.name}` {column.type} CODEC({codec})"


def create_table(fact: Fact) -> str:
    """The `CREATE TABLE` statement of a fact table, from its Avro schema."""
    columns = columns_of(fact.record)
    lines = [column_sql(column) for column in columns[: len(POSITION)]]
    lines.append("`ingested_at` DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC') CODEC(Delta(8), ZSTD(1))")
    lines += [column_sql(column) for column in columns[len(POSITION) :]]
    order = ", ".join(f"`{name}`" for name in _ORDER[fact.table])
    body = ",\n    ".join(lines)
    return (
        f"CREATE TABLE IF NOT EXISTS `{fact.table}`\n(\n    {body}\n)\n"
        f"ENGINE = MergeTree\nPARTITION BY toYYYYMM(`{fact.time}`)\nORDER BY ({order})\n"
        f"SETTINGS non_replicated_deduplication_window = {DEDUPLICATION_WINDOW};"
    )


def schema_version(client: Client) -> int:
    """The number of the last migration that the store has, 0 for an empty one."""
    if not client.command("EXISTS TABLE schema_migrations"):
        return 0
    return int(client.query("SELECT max(version) FROM schema_migrations").result_rows[0][0])


def require_current_schema(client: Client) -> None:
    """Raise `SchemaBehind` when the store lacks a migration. A store that is ahead only has columns not written here."""
    have = schema_version(client)
    if have < migrations()[-1].version:
        raise SchemaBehind.at(have)


def migrate_clickhouse(settings: Settings) -> int:
    """Create the database and apply the migrations that are missing; the schema's version afterwards.

    Running it again, or after it was cut off, is safe.
    """
    database = settings.clickhouse_database
    with connect(settings, "default") as client:
        client.command(f"CREATE DATABASE IF NOT EXISTS `{database}`")
    with connect(settings) as client:
        client.command(
            "CREATE TABLE IF NOT EXISTS schema_migrations (version UInt32, name String, applied_at DateTime('UTC') "
            "DEFAULT now()) ENGINE = MergeTree ORDER BY version"
        )
        have = schema_version(client)
        for migration in migrations():
            if migration.version > have:
                _apply(client, migration)
        return schema_version(client)


def _apply(client: Client, migration: Migration) -> None:
    for statement in migration.statements:
        client.command(statement)
    client.insert(
        "schema_migrations",
        [[migration.version, migration.name]],
        column_names=["version", "name"],
        column_type_names=["UInt32", "String"],
    )
    LOG.info("ClickHouse migration %04d_%s is applied.", migration.version, migration.name)


if __name__ == "__main__":
    print("\n\n".join(create_table(fact) for fact in FACTS))
