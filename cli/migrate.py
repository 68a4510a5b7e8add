"""`millstream migrate`: everything that has to exist before the workers start."""

from __future__ import annotations

import argparse

from sqlalchemy.exc import SQLAlchemyError

from cli import kafka
from cli.errors import CommandError
from cli.stackfile import stack_settings
from config.database import create_tables, open_database
from config.registry import lanes
from config.schema_registry import open_codec
from config.settings import Settings
from core.topics import all_topics
from sinks.tables import migrate_clickhouse


def describe(parser: argparse.ArgumentParser) -> None:
    """No options: everything comes from the settings."""


def run(_: argparse.Namespace) -> int:
    """Create what is missing and say what was."""
    for line in migrate(stack_settings()):
        print(line)
    return 0


def migrate(settings: Settings) -> list[str]:
    """Create topics, registered schemas, ledger tables and ClickHouse tables; one line each on what was done."""
    created = kafka.create_topics(settings, all_topics(lanes(settings), settings.request_tenants))
    lines = [f"Kafka: {len(created)} topics created at {settings.kafka_bootstrap}."]
    if settings.schema_registry_url is not None:
        open_codec(settings)
        lines.append(f"Schema registry: schemas registered at {settings.schema_registry_url}.")
    lines.append(f"Ledger: tables ready in {_tables(settings.database_url, 'ledger', 'MILLSTREAM_DATABASE_URL')}.")
    if (spare := settings.spare_database_url) is not None:
        lines.append(
            f"Spare ledger: tables ready in {_tables(spare, 'spare ledger', 'MILLSTREAM_SPARE_DATABASE_URL')}."
        )
    try:
        version = migrate_clickhouse(settings)
    except Exception as error:
        raise CommandError(
            f"ClickHouse at {settings.clickhouse_url} cannot be used ({_first_line(error)}); "
            "start it or set MILLSTREAM_CLICKHOUSE_URL."
        ) from None
    lines.append(f"ClickHouse: schema version {version} in database {settings.clickhouse_database}.")
    return lines


def _tables(url: str, whose: str, setting: str) -> str:
    """Where the tables are that this brought to the present version."""
    engine = open_database(url)
    where = engine.url.render_as_string()
    try:
        create_tables(engine)
    except SQLAlchemyError as error:
        raise CommandError(
            f"The {whose}'s database at {where} cannot be used ({_first_line(error)}); start it or set {setting}."
        ) from None
    finally:
        engine.dispose()
    return where


def _first_line(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error).splitlines()[0][:200]
