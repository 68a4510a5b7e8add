"""Write batches into ClickHouse so that sending one again changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

import clickhouse_connect
from clickhouse_connect.datatypes.registry import get_from_name
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.common import write_leb128
from clickhouse_connect.driver.compression import get_compressor
from clickhouse_connect.driver.insert import InsertContext

from config.settings import Settings
from sinks import bodies
from sinks.rows import FACTS, Column, columns_of

COMPRESSION = "zstd"
CONNECT_SECONDS = 5
#: Below Kafka's max.poll.interval.ms by a wide margin, so that a slow insert does not cost the group membership.
INSERT_SECONDS = 60

#: Sent with every insert, so that no server or profile default can change what an insert means.
INSERT_SETTINGS: dict[str, Any] = {
    "insert_deduplicate": 1,
    "deduplicate_blocks_in_dependent_materialized_views": 1,
    "materialized_views_ignore_errors": 0,
    "async_insert": 0,
    "max_partitions_per_insert_block": 0,
    "wait_end_of_query": 1,
    # One block is one thread's work; setting up more costs small inserts a quarter of their CPU.
    "max_threads": 1,
    "max_insert_threads": 1,
}


def connect(settings: Settings, database: str | None = None) -> Client:
    """A ClickHouse client on `settings.clickhouse_url`, in `database` or in the one of the settings.

    Raises an exception of `clickhouse_connect.driver.exceptions` when the server cannot be reached.
    """
    url = urlsplit(settings.clickhouse_url)
    return clickhouse_connect.get_client(
        host=url.hostname or "127.0.0.1",
        port=url.port or (8443 if url.scheme == "https" else 8123),
        secure=url.scheme == "https",
        username=unquote(url.username) if url.username else None,
        password=unquote(url.password or ""),
        database=settings.clickhouse_database if database is None else database,
        connect_timeout=CONNECT_SECONDS,
        send_receive_timeout=INSERT_SECONDS,
        autogenerate_session_id=False,
    )


class Writer:
    """Inserts batches of facts; connects when first used and again after a failure."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: Client | None = None
        self._tables = {fact.table: _Table(fact.table, columns_of(fact.record)) for fact in FACTS}
        self._tables[bodies.TABLE] = _Table(bodies.TABLE, bodies.COLUMNS)

    def encoded(self, table: str, columns: Sequence[list[Any]]) -> bytes:
        """One batch, given as a list of values a column, as `insert` sends it.

        Raises what the values give rise to, when the table's types cannot hold one of them.
        """
        return self._tables[table].encoded(columns)

    def insert(self, body: bytes, token: str) -> None:
        """Insert one encoded batch.

        Where a batch with this token was inserted before, ClickHouse drops this one and repairs the rollups that lack it.
        The request has a known length, so a batch that is cut off on its way is refused as a whole.
        """
        try:
            self.client.raw_insert(
                table="",  # the statement is the beginning of the body
                insert_block=body,
                settings={**INSERT_SETTINGS, "insert_deduplication_token": token},
                compression=COMPRESSION,
            )
        except Exception:
            self.close()
            raise

    @property
    def client(self) -> Client:
        """The open connection."""
        if self._client is None:
            self._client = connect(self._settings)
        return self._client

    def close(self) -> None:
        """Close the connection; the next insert opens another."""
        if self._client is not None:
            self._client.close()
            self._client = None


class _Table:
    """Encodes one table's batches: an `INSERT` statement and one block in the Native format, compressed.

    https://clickhouse.com/docs/interfaces/formats/Native
    """

    def __init__(self, table: str, columns: Sequence[Column]) -> None:
        names = [column.name for column in columns]
        types = [get_from_name(column.type) for column in columns]
        heads = [_text(name) + _text(kind.insert_name) for name, kind in zip(names, types, strict=True)]
        self._columns = list(zip(heads, types, strict=True))
        self._statement = f"INSERT INTO `{table}` ({', '.join(f'`{name}`' for name in names)}) FORMAT Native\n".encode()
        self._context = InsertContext(table, names, types, column_oriented=True)

    def encoded(self, columns: Sequence[list[Any]]) -> bytes:
        out = bytearray(self._statement)
        write_leb128(len(self._columns), out)
        write_leb128(len(columns[0]), out)
        for (head, kind), values in zip(self._columns, columns, strict=True):
            out += head
            kind.write_column(values, out, self._context)
        return bytes(get_compressor(COMPRESSION).compress_block(out))


def _text(value: str) -> bytes:
    out = bytearray()
    write_leb128(len(value.encode()), out)
    return bytes(out + value.encode())
