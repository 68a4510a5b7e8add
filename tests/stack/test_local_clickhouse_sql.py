"""Parting ClickHouse statements from their data."""

from __future__ import annotations

import pytest

from local.clickhouse_sql import output_format, reads, set_statement, split_insert, with_output_format


@pytest.mark.parametrize(
    ("text", "statement", "name", "data"),
    [
        (b"INSERT INTO t FORMAT TSV\n1\t2\n", "INSERT INTO t ", "TSV", b"1\t2\n"),
        (b"insert into t (a, b) format RowBinary\n\n\x00", "insert into t (a, b) ", "RowBinary", b"\n\x00"),
        (b"INSERT INTO t FORMAT CSV 1,2", "INSERT INTO t ", "CSV", b"1,2"),
        (b"INSERT INTO t FORMAT Native\r\n\x02", "INSERT INTO t ", "Native", b"\x02"),
        (b"INSERT INTO `FORMAT x` FORMAT CSV\n1", "INSERT INTO `FORMAT x` ", "CSV", b"1"),
        (b"INSERT INTO t (format, `b`) FORMAT CSV\n1", "INSERT INTO t (format, `b`) ", "CSV", b"1"),
        (
            b"-- FORMAT a\n/* INSERT */ INSERT INTO t FORMAT CSV\n1",
            "-- FORMAT a\n/* INSERT */ INSERT INTO t ",
            "CSV",
            b"1",
        ),
        (
            b"INSERT INTO t SETTINGS insert_deduplication_token = 'FORMAT CSV' FORMAT TSV\n\xff",
            "INSERT INTO t SETTINGS insert_deduplication_token = 'FORMAT CSV' ",
            "TSV",
            b"\xff",
        ),
    ],
)
def test_insert_with_data_is_parted(text: bytes, statement: str, name: str, data: bytes) -> None:
    """The statement ends before FORMAT; the data begins after its line, whatever bytes it holds."""
    parts = split_insert(text)
    assert parts is not None
    assert (parts.statement + parts.settings, parts.format, bytes(parts.data)) == (statement, name, data)
    assert "SETTINGS" not in parts.statement


@pytest.mark.parametrize(
    "text",
    [
        b"SELECT 'INSERT INTO t FORMAT TSV' FORMAT CSV",
        b"INSERT INTO t VALUES (1, 'FORMAT CSV')",
        b"INSERT INTO t FORMAT Values (1)",
        b"INSERT INTO t SELECT 1 FORMAT CSV",
        b"INSERT INTO t FROM INFILE 'x' FORMAT CSV",
        b"CREATE TABLE t (a String) ENGINE = File(CSV)",
        b"INSERT INTO t (a)",
        b"",
    ],
)
def test_other_statements_are_left_whole(text: bytes) -> None:
    """What carries no data after FORMAT is not parted."""
    assert split_insert(text) is None


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (b"SELECT 1", "TabSeparated"),
        (b"SELECT 1\n FORMAT Native", "Native"),
        (b"SELECT 1 format JSON ; ", "JSON"),
        (b"SELECT 1 FORMAT JSON SETTINGS max_threads = 1", "JSON"),
        (b"SELECT format('{}', 1)", "TabSeparated"),
    ],
)
def test_the_format_of_a_result(text: bytes, name: str) -> None:
    """The last FORMAT clause decides, the default where there is none."""
    assert output_format(text, "TabSeparated") == name


def test_another_format_for_the_same_query() -> None:
    """with_output_format replaces the clause, or adds one."""
    assert with_output_format(b"SELECT 1\n FORMAT Native", "CSV").split() == [
        b"SELECT",
        b"1",
        b"FORMAT",
        b"CSV",
    ]
    assert with_output_format(b"SELECT 1;", "CSV").split() == [b"SELECT", b"1", b"FORMAT", b"CSV"]


def test_statements_with_a_result() -> None:
    """Queries have a result even without rows; commands have none."""
    assert reads(b"/* x */ (SELECT 1) UNION ALL (SELECT 2)")
    assert reads(b"with 1 as x select x")
    assert not reads(b"CREATE TABLE t (a Int8) ENGINE = Memory")


def test_settings_are_quoted_and_their_names_checked() -> None:
    """A value cannot end its literal, and a name that is none is refused."""
    assert set_statement({"a": "it's \\", "b.c": "1"}) == r"SET a = 'it\'s \\', b.c = '1'"
    with pytest.raises(ValueError, match="no name of a setting"):
        set_statement({"a = 1, b": "2"})
