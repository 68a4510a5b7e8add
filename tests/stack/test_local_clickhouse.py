"""The local ClickHouse, through its HTTP interface, as clients use it."""

from __future__ import annotations

import gzip
import json
import struct
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import clickhouse_connect
import lz4.block
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from local.clickhouse import ClickHouseServer

_DEDUPLICATED = {
    "insert_deduplicate": 1,
    "deduplicate_blocks_in_dependent_materialized_views": 1,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseServer]:
    """A running server."""
    server = ClickHouseServer(tmp_path_factory.mktemp("clickhouse"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def client(server: ClickHouseServer) -> Iterator[Client]:
    """clickhouse-connect on that server, in a database of the test's own."""
    name = f"test_{uuid.uuid4().hex}"
    with clickhouse_connect.get_client(host="127.0.0.1", port=server.port) as made:
        made.command(f"CREATE DATABASE {name}")
    with clickhouse_connect.get_client(host="127.0.0.1", port=server.port, database=name) as client:
        yield client


def _http(server: ClickHouseServer, body: bytes | None = None, /, **params: str) -> bytes:
    """POSTs (GETs without a body) and returns what came; urllib raises HTTPError for a refusal."""
    with urllib.request.urlopen(f"{server.url}/?{urlencode(params)}", body, timeout=30) as reply:
        return bytes(reply.read())


def test_values_of_every_type_we_use_round_trip(client: Client) -> None:
    """Extremes of integers, decimals, times, nulls, maps, arrays and UUIDs come back as they went in."""
    client.command(
        "CREATE TABLE t (u UInt64, i Int64, d Decimal(38, 9), ts DateTime64(6, 'UTC'), n Nullable(UInt64), "
        "lc LowCardinality(String), m Map(String, UInt64), a Array(String), id UUID, s String) "
        "ENGINE = MergeTree ORDER BY u"
    )
    instant = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    rows = [
        [
            0,
            -(2**63),
            Decimal("-0.000000001"),
            datetime(1970, 1, 1, tzinfo=UTC),
            None,
            "",
            {},
            [],
            uuid.UUID(int=0),
            "",
        ],
        [
            *(2**64 - 1, 2**63 - 1, Decimal("12345678901234567890123456789.123456789"), instant, 7, "acme"),
            *({"a": 2**64 - 1}, ["p", "q'\\\n\t"], uuid.UUID(int=2**128 - 1), "snow ☃ \x00 `'\""),
        ],
    ]
    columns = ["u", "i", "d", "ts", "n", "lc", "m", "a", "id", "s"]
    summary = client.insert("t", rows, column_names=columns)
    assert summary.written_rows == 2
    result = client.query("SELECT * FROM t ORDER BY u", tz_mode="aware")
    assert list(result.column_names) == columns
    assert [list(row) for row in result.result_rows] == rows


@pytest.mark.parametrize("compression", ["lz4", "zstd", "gzip", False])
def test_compression_of_requests_and_replies(server: ClickHouseServer, client: Client, compression: Any) -> None:
    """Every compression that clickhouse-connect offers is understood, in a body of several frames too."""
    client.command("CREATE TABLE t (n UInt64, s String) ENGINE = MergeTree ORDER BY n")
    with clickhouse_connect.get_client(
        host="127.0.0.1", port=server.port, database=client.database, compress=compression
    ) as other:
        other.insert("t", [[n, "x" * 100] for n in range(50_000)], column_names=["n", "s"])
        assert other.query("SELECT n FROM t ORDER BY n").result_columns == [list(range(50_000))]


def test_an_error_reaches_the_client_with_code_and_message(server: ClickHouseServer, client: Client) -> None:
    """A failing query or insert is DatabaseError with ClickHouse's words, and HTTP 4xx with its code."""
    with pytest.raises(DatabaseError, match="UNKNOWN_TABLE"):
        client.query("SELECT * FROM nowhere")
    client.command("CREATE TABLE t (n UInt64) ENGINE = MergeTree ORDER BY n")
    with pytest.raises(DatabaseError, match="Cannot parse input"):
        client.raw_insert("t", insert_block=b'{"n": "word"}', fmt="JSONEachRow")
    with pytest.raises(urllib.error.HTTPError) as caught:
        _http(server, b"SELECT nothing")
    assert caught.value.code == 404
    assert caught.value.headers["X-ClickHouse-Exception-Code"] == "47"
    assert caught.value.read().startswith(b"Code: 47. DB::Exception: ")
    with pytest.raises(urllib.error.HTTPError, match="404") as caught:
        _http(server, b"SELECT 1", no_such_setting="1")
    assert b"UNKNOWN_SETTING" in caught.value.read()


def test_a_failed_insert_leaves_no_row(client: Client) -> None:
    """An insert whose last row is malformed stores none of its rows."""
    client.command("CREATE TABLE t (n UInt64) ENGINE = MergeTree ORDER BY n")
    with pytest.raises(DatabaseError):
        client.raw_insert("t", insert_block=b'{"n": 1}\n{"n": 2}\n{"n"', fmt="JSONEachRow")
    assert client.command("SELECT count() FROM t") == 0


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("ADD CONSTRAINT small CHECK n < 2", 469),
        ("MODIFY SETTING min_free_disk_bytes_to_perform_insert = 1000000000000000000", 243),
        ("MODIFY SETTING parts_to_throw_insert = 1, parts_to_delay_insert = 1", 252),
        ("MODIFY SETTING table_readonly = 1", 774),
    ],
)
def test_an_insert_that_the_engine_refuses_is_an_error(client: Client, change: str, code: int) -> None:
    """What a table refuses while its rows are written is told to the client with its code, and leaves no row."""
    client.command("DROP TABLE IF EXISTS refusing")
    client.command("CREATE TABLE refusing (n UInt64) ENGINE = MergeTree ORDER BY n")
    client.insert("refusing", [[1]], ["n"])
    client.command(f"ALTER TABLE refusing {change}")
    for block in (b'{"n": 2}\n', b'{"n": 3}\n{"n": 4}\n'):
        with pytest.raises(DatabaseError, match=f"Code: {code}"):
            client.raw_insert("refusing", insert_block=block, fmt="JSONEachRow")
    assert client.command("SELECT count() FROM refusing") == 1


def test_settings_and_parameters_last_one_request(server: ClickHouseServer) -> None:
    """A setting or a bound parameter of one request is not seen by the next."""
    query = "SELECT getSetting('max_block_size')"
    usual = _http(server, query=query)
    assert _http(server, query=query, max_block_size="77") == b"77\n"
    assert _http(server, query=query) == usual
    assert (
        _http(server, b"SELECT {name:String}, {n:UInt8}", param_name="o'neil\\\\ x", param_n="4")
        == b"o\\'neil\\\\ x\t4\n"
    )
    with pytest.raises(urllib.error.HTTPError):
        _http(server, b"SELECT {n:UInt8}")


def test_a_result_without_rows_still_names_its_columns(client: Client) -> None:
    """SELECT that finds nothing gives the columns, as a ClickHouse server does."""
    result = client.query("SELECT 1 AS one, 'x' AS two WHERE 0")
    assert (list(result.column_names), result.result_rows) == (["one", "two"], [])


def test_the_plain_interface(server: ClickHouseServer) -> None:
    """ping, the query in the URL or the body, the default format and the one asked for, VALUES, headers."""
    with urllib.request.urlopen(f"{server.url}/ping") as reply:
        assert reply.read() == b"Ok.\n"
    assert _http(server) == b"Ok.\n"
    assert _http(server, query="SELECT 1, 'a'") == b"1\ta\n"
    assert _http(server, b"SELECT 1 AS x", default_format="JSONEachRow") == b'{"x":1}\n'
    _http(server, b"CREATE TABLE plain (n UInt64, s String) ENGINE = MergeTree ORDER BY n")
    _http(server, b"INSERT INTO plain VALUES (1, 'FORMAT TSV'), (2, '')")
    _http(server, b"3\tc\n4\td", query="INSERT INTO plain (n, s) FORMAT TSV")
    _http(server, b"INSERT INTO plain SETTINGS async_insert = 0 FORMAT CSV\n5,e\n")
    assert _http(server, b"SELECT groupArray(n) FROM (SELECT n FROM plain ORDER BY n)") == b"[1,2,3,4,5]\n"
    request = urllib.request.Request(
        server.url, b"SELECT 1 FORMAT JSON", {"X-ClickHouse-User": "default", "X-ClickHouse-Key": ""}
    )
    with urllib.request.urlopen(request) as reply:
        assert reply.headers["X-ClickHouse-Format"] == "JSON"
        assert json.loads(reply.headers["X-ClickHouse-Summary"])["read_rows"] == "1"
        assert json.load(reply)["rows"] == 1


def test_block_compressed_and_gzipped_bodies(server: ClickHouseServer) -> None:
    """`decompress=1` takes ClickHouse's own LZ4 blocks, Content-Encoding takes gzip."""
    plain = b"SELECT 'packed'"
    packed = lz4.block.compress(plain, store_size=False)
    block = bytes(16) + struct.pack("<BII", 0x82, len(packed) + 9, len(plain)) + packed
    assert _http(server, block, decompress="1") == b"packed\n"
    request = urllib.request.Request(server.url, gzip.compress(plain), {"Content-Encoding": "gzip"})
    with urllib.request.urlopen(request) as reply:
        assert reply.read() == b"packed\n"
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(
            urllib.request.Request(server.url, gzip.compress(plain)[:-4], {"Content-Encoding": "gzip"})
        )
    assert b"ends in the middle" in caught.value.read()


def test_a_repeated_insert_is_dropped_and_a_missing_rollup_repaired(client: Client) -> None:
    """One token stores its rows once, in the table and in the view's target, which a repeat repairs."""
    window = "SETTINGS non_replicated_deduplication_window = 1000"
    client.command(f"CREATE TABLE facts (k String, n UInt64) ENGINE = MergeTree ORDER BY k {window}")
    client.command(f"CREATE TABLE rollup (k String, total UInt64) ENGINE = SummingMergeTree ORDER BY k {window}")
    view = "CREATE MATERIALIZED VIEW mv TO rollup AS SELECT k, sum(n) AS total FROM facts GROUP BY k"
    rows = [["a", 1], ["a", 2], ["b", 3]]

    def insert(token: str) -> None:
        settings = {**_DEDUPLICATED, "insert_deduplication_token": token}
        client.insert("facts", rows, column_names=["k", "n"], settings=settings)

    def sums() -> tuple[Any, Any]:
        return client.command("SELECT sum(n) FROM facts"), client.command("SELECT sum(total) FROM rollup")

    insert("facts:0:0-2")
    assert sums() == (6, 0), "the crash before the rollup: facts are in, the rollup is not"
    client.command(view)
    insert("facts:0:0-2")
    assert sums() == (6, 6), "the repeat repairs the rollup and leaves the facts alone"
    insert("facts:0:0-2")
    assert sums() == (6, 6), "a further repeat changes nothing"
    insert("facts:0:3-5")
    assert sums() == (12, 12), "the same rows under another token are other rows"


def test_acknowledged_rows_and_tokens_survive_kill_9(server: ClickHouseServer, client: Client) -> None:
    """After SIGKILL and start, every acknowledged insert is there once, and its token is still known."""
    client.command(
        "CREATE TABLE t (n UInt64) ENGINE = MergeTree ORDER BY n SETTINGS non_replicated_deduplication_window = 1000"
    )

    def insert(batch: int) -> None:
        rows = [[batch * 100 + n] for n in range(100)]
        settings = {**_DEDUPLICATED, "insert_deduplication_token": f"t:0:{batch}"}
        client.insert("t", rows, column_names=["n"], settings=settings)

    for batch in range(20):
        insert(batch)
    server.kill()
    server.start()
    assert client.command("SELECT count() FROM t") == 2000
    for batch in range(20):
        insert(batch)
    assert client.command("SELECT concat(toString(count()), ' ', toString(uniqExact(n))) FROM t") == "2000 2000"


def test_requests_run_side_by_side(server: ClickHouseServer) -> None:
    """A slow query does not hold up others, and parallel inserts all arrive."""
    _http(server, b"CREATE TABLE side (n UInt64) ENGINE = MergeTree ORDER BY n")
    with ThreadPoolExecutor(9) as threads:
        slow = threads.submit(_http, server, b"SELECT sleep(3)")
        writes = [
            threads.submit(_http, server, str(n).encode(), query="INSERT INTO side FORMAT TSV") for n in range(40)
        ]
        for write in writes:
            write.result()
        assert _http(server, b"SELECT count(), uniqExact(n) FROM side") == b"40\t40\n"
        assert not slow.done()


def test_a_port_in_use_is_an_error(server: ClickHouseServer, tmp_path: Path) -> None:
    """A server whose port another one has does not take that one's answer for its own."""
    second = ClickHouseServer(tmp_path, server.port)
    with pytest.raises(RuntimeError, match=r"(?s)ClickHouse ended with status .*address already in use"):
        second.start()
