"""Servers of the tests' own: a PostgreSQL that they stop, and what the tests of the sink need."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local.broker import KafkaBroker
from local.clickhouse import ClickHouseServer
from local.postgres import PostgresServer
from tests.databases import postgres_server
from tests.stack.sink_world import MakeWorld, World


@pytest.fixture(scope="module")
def database() -> Iterator[PostgresServer]:
    """A server of the tests' own, which they stop."""
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[KafkaBroker, ClickHouseServer]]:
    """One Kafka and one ClickHouse for the tests of the sink."""
    folder: Path = tmp_path_factory.mktemp("sink")
    kafka, clickhouse = KafkaBroker(folder / "kafka"), ClickHouseServer(folder / "clickhouse")
    try:
        clickhouse.start()
        kafka.start()
        yield kafka, clickhouse
    finally:
        kafka.stop()
        clickhouse.stop()


@pytest.fixture
def world(servers: tuple[KafkaBroker, ClickHouseServer]) -> Iterator[MakeWorld]:
    """Makes worlds whose processes end with the test."""
    made: list[World] = []

    def make(partitions: int = 3, **changes: Any) -> World:
        made.append(World.make(*servers, partitions, **changes))
        return made[-1]

    yield make
    for each in made:
        each.end()
