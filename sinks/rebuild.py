"""Fill fresh tables from the topics, prove them equal row by row, and put them in the place of those that are there.

The rows are made by what the sink itself makes them by. They go into a database of their own; its partitions then replace those
of the tables in use, rollups included, so that readers never see a table half filled.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from clickhouse_connect.driver.client import Client
from confluent_kafka import Message

from config.settings import Settings
from schemas.codec import Codec
from sinks import bodies
from sinks.batch import prepare
from sinks.partition import Partition
from sinks.rows import Fact, columns_of
from sinks.tables import migrate_clickhouse
from sinks.window import Window
from sinks.writer import Writer, connect

#: Of each partition, the first offset that counts and the one after the last.
Ranges = Mapping[int, tuple[int, int]]


class Digest(NamedTuple):
    """A table's rows: how many, and the sum and exclusive or of a hash of each, its position in the log included."""

    rows: int
    sum: int
    xor: int


def digest(settings: Settings, fact: Fact, ranges: Ranges) -> Digest:
    """The digest of the rows made of these records, every column but the time of ingestion."""
    columns = ", ".join(f"`{column.name}`" for column in columns_of(fact.record))
    sql = (
        f"SELECT count(), sum(h), groupBitXor(h) FROM (SELECT sipHash64(toString(tuple({columns}))) AS h "  # noqa: S608
        f"FROM `{fact.table}` WHERE {_within(ranges)} AND kafka_topic = {{topic:String}})"
    )
    with connect(settings) as client:
        row = client.query(sql, {"topic": fact.topic.on(settings.topic_prefix)}).result_rows[0]
    return Digest(*(int(value) for value in row))


def rows_elsewhere(settings: Settings, fact: Fact, ranges: Ranges) -> int:
    """How many rows of a table are of no record in these ranges."""
    sql = f"SELECT count() FROM `{fact.table}` WHERE NOT ({_within(ranges)} AND kafka_topic = {{topic:String}})"  # noqa: S608
    with connect(settings) as client:
        return int(client.query(sql, {"topic": fact.topic.on(settings.topic_prefix)}).result_rows[0][0])


def bodies_kept(settings: Settings) -> tuple[int, int]:
    """How many prompts and answers are stored, and the bytes of their texts."""
    with connect(settings) as client:
        row = client.query(f"SELECT count(), sum(length(body)) FROM `{bodies.TABLE}`").result_rows[0]  # noqa: S608
    return int(row[0]), int(row[1])


def _within(ranges: Ranges) -> str:
    parts = [f"(kafka_partition = {n} AND kafka_offset >= {a} AND kafka_offset < {b})" for n, (a, b) in ranges.items()]
    return f"({' OR '.join(parts)})" if parts else "0"


@contextmanager
def fresh_database(settings: Settings) -> Iterator[Settings]:
    """Settings that point at a new, migrated, empty database beside the one in use; it is dropped at the end."""
    name = f"{settings.clickhouse_database}_rebuild_{uuid.uuid4().hex[:8]}"
    fresh = settings.model_copy(update={"clickhouse_database": name})
    try:
        migrate_clickhouse(fresh)
        yield fresh
    finally:
        with connect(settings, "default") as client:
            client.command(f"DROP DATABASE IF EXISTS `{name}` SYNC")


class Filling:
    """Fills the tables of a database from records, given partition by partition in the order of their offsets."""

    def __init__(self, settings: Settings, codec: Codec) -> None:
        self._rows = settings.sink_batch_rows
        self._keep = settings.bodies
        self._codec = codec
        self._prefix = settings.topic_prefix
        self._writer = Writer(settings)
        self._partitions: dict[tuple[str, int], Partition] = {}

    def take(self, fact: Fact, message: Message, first: int) -> None:
        """Take one record; `first` is the offset at which its partition begins."""
        topic, number = fact.topic.on(self._prefix), message.partition()
        partition = self._partitions.get((topic, number))
        if partition is None:
            partition = Partition(topic, number, fact, first, None, Window(first), first)
            self._partitions[topic, number] = partition
        partition.take([message], 0.0)
        if partition.due(self._rows, float("inf"), 0.0):
            self._store(partition)

    def finish(self) -> None:
        """Store what is still held, and close the connection."""
        for partition in self._partitions.values():
            while partition.due(1, 0.0, 0.0):
                self._store(partition)
        self._writer.close()

    def _store(self, partition: Partition) -> None:
        batch = partition.begin(self._rows)
        prepared = prepare(partition, batch, self._codec, self._writer.encoded, self._keep)
        for insert in prepared.inserts:
            place = f"{partition.topic}:{partition.number}:{batch.first}-{batch.last}"
            self._writer.insert(insert.body, f"{insert.table}:{place}")
        partition.finish(0.0)


def replace_tables(settings: Settings, fresh: Settings) -> list[str]:
    """Put the fresh tables' contents in the place of those in use; the names of the tables.

    Each partition is replaced at once (https://clickhouse.com/docs/sql-reference/statements/alter/partition#replace-partition);
    when cut off between two, another run puts it right.
    """
    ours, theirs = settings.clickhouse_database, fresh.clickhouse_database
    with connect(settings) as client:
        tables = [
            str(row[0])
            for row in client.query(
                "SELECT name FROM system.tables WHERE database = {database:String} AND engine LIKE '%MergeTree' "
                "AND name != 'schema_migrations' ORDER BY name",
                {"database": theirs},
            ).result_rows
        ]
        for table in tables:
            new, old = _partitions(client, theirs, table), _partitions(client, ours, table)
            for partition in sorted(old - new):
                client.command(f"ALTER TABLE `{ours}`.`{table}` DROP PARTITION ID '{partition}'")
            for partition in sorted(new):
                client.command(
                    f"ALTER TABLE `{ours}`.`{table}` REPLACE PARTITION ID '{partition}' FROM `{theirs}`.`{table}`"
                )
    return tables


def _partitions(client: Client, database: str, table: str) -> set[str]:
    sql = "SELECT DISTINCT partition_id FROM system.parts WHERE active AND database = {d:String} AND table = {t:String}"
    return {str(row[0]) for row in client.query(sql, {"d": database, "t": table}).result_rows}
