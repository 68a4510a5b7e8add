"""ClickHouse beside the topics, row by row, and its rollups beside its facts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import orjson

from cli.reconcile.topics import TOKENS, RowEntry, Told, fact_book
from cli.reconcile.watermark import Mark, Watermark
from config.settings import Settings
from core.reconcile import Book, Difference, Line, Side, compare
from sinks.query import Store
from sinks.rows import FACTS, Column, Fact, columns_of

DIMENSIONS = ("tenant", "user", "project", "task", "provider", "model", "status", "error_code")

#: Each rollup of `usage`: its column of time, and that column's value for a fact.
ROLLUPS = {
    "usage_by_minute": ("minute", "toStartOfMinute(toDateTime(created_at, 'UTC'))"),
    "usage_by_hour": ("hour", "toStartOfHour(toDateTime(created_at, 'UTC'))"),
    "usage_by_day": ("day", "toDate(created_at, 'UTC')"),
}

#: What a rollup sums, and the same over facts.
SUMMED = {
    "requests": "countIf(attempt = 1 AND adjusts = '')",
    "calls": "countIf(adjusts = '')",
    "calls_without_cost": "countIf(adjusts = '' AND usage.cost_nano_usd IS NULL)",
    **{name: f"sum(ifNull(usage.{name}, 0))" for name in (*TOKENS, "cost_nano_usd")},
}

#: An insert reaches the facts and each rollup one after the other: what differs for so many looks is no insert under way.
LOOKS = 4
LOOK_SECONDS = 0.7
MOST_GROUPS = 1_000


def fact_lines(
    store: Store, settings: Settings, told: Told, marks: Watermark, progress: Callable[[str], None]
) -> Iterator[Line]:
    """A line a fact table: the rows that its topic gives up to what the sink has committed, beside those that are there."""
    for fact in FACTS:
        progress(f"Reading the rows of {fact.table} ...")
        mark = marks.marks[fact.topic.name]
        rows, entry = fact_book(f"table {fact.table}", fact), RowEntry(fact)
        for row in fact_rows(store, settings, fact, mark):
            entry.enter(rows, row)
        notes = []
        if late := mark.not_yet(mark.stored):
            notes.append(f"{late:,} records that the sink has yet to store")
        if older := _rows_before(store, settings, fact, mark):
            why = "that the topic no longer holds" if mark.start == mark.low else "from before the time compared"
            notes.append(f"{older:,} rows {why}")
        if older and (again := told.facts[fact.table].without(_stored_before(store, settings, fact, mark, told, rows))):
            notes.append(f"{again:,} events that repeat one from before that part of the topic")
        yield compare(f"{fact.topic.name} = rows of {fact.table}", told.facts[fact.table], rows, notes)


def fact_rows(store: Store, settings: Settings, fact: Fact, mark: Mark) -> Iterator[list[Any]]:
    """The rows made of the records from the mark's start to what the sink has stored, values in the order of `columns_of`."""
    ranges = [
        f"(kafka_partition = {number} AND kafka_offset >= {mark.start[number]} AND kafka_offset < {stored})"
        for number, stored in mark.stored.items()
    ]
    if not ranges:
        return
    chosen = ", ".join(as_number(column) for column in columns_of(fact.record))
    where = f"kafka_topic = {quoted(fact.topic.on(settings.topic_prefix))} AND ({' OR '.join(ranges)})"
    sql = f"SELECT {chosen} FROM `{fact.table}` WHERE {where}"  # noqa: S608
    yield from streamed(store, sql)


def streamed(store: Store, sql: str) -> Iterator[list[Any]]:
    """The rows of a query as they come, values as JSON has them."""
    rest = b""
    for chunk in store.output(sql, "JSONCompactEachRow"):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from map(orjson.loads, lines)


def _rows_before(store: Store, settings: Settings, fact: Fact, mark: Mark) -> int:
    if not (before := _before(mark)):
        return 0
    topic = quoted(fact.topic.on(settings.topic_prefix))
    sql = f"SELECT count() AS n FROM `{fact.table}` WHERE kafka_topic = {topic} AND ({before})"  # noqa: S608
    return int(store.rows(sql)[0]["n"])


def _stored_before(store: Store, settings: Settings, fact: Fact, mark: Mark, told: Told, rows: Book) -> set[str]:
    """The ids of events without a row that have one from before the mark's start: the sink dropped their repetition."""
    book = told.facts[fact.table]
    missing = [entry[1] for key, entry in book.entries.items() if key not in rows.entries]
    found: set[str] = set()
    for at in range(0, len(missing), MOST_GROUPS):
        ids = ", ".join(map(quoted, missing[at : at + MOST_GROUPS]))
        before = _before(mark)
        topic = quoted(fact.topic.on(settings.topic_prefix))
        sql = f"SELECT ce_id FROM `{fact.table}` WHERE ce_id IN ({ids}) AND kafka_topic = {topic} AND ({before})"  # noqa: S608
        found.update(row["ce_id"] for row in store.rows(sql))
    return found


def _before(mark: Mark) -> str:
    return " OR ".join(
        f"(kafka_partition = {n} AND kafka_offset < {first})" for n, first in mark.start.items() if first
    )


def as_number(column: Column) -> str:
    """The column as SQL, a time or date as the number that an event has."""
    if "DateTime64" in column.type:
        return f"toUnixTimestamp64Micro(`{column.name}`)"
    return f"toInt32(`{column.name}`)" if "Date" in column.type else f"`{column.name}`"


def quoted(text: str) -> str:
    """Text as a literal of ClickHouse SQL."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def rollup_lines(store: Store, since_us: int | None, progress: Callable[[str], None]) -> Iterator[Line]:
    """A line a rollup: the sums of the facts beside the rollup's, for every group; whole days from that of `since_us` on."""
    day = "" if since_us is None else f"{datetime.fromtimestamp(since_us / 1e6, UTC):%Y-%m-%d}"
    for table, (column, bucket) in ROLLUPS.items():
        progress(f"Summing usage for {table} ...")
        left, right, groups = _sums(store, table, column, bucket, day)
        for _ in range(LOOKS - 1):
            if not groups:
                break
            time.sleep(LOOK_SECONDS)
            left, right, again = _sums(store, table, column, bucket, day)
            groups = {key: what for key, what in again.items() if key in groups}
        notes = (f"groups before {day}",) if day else ()
        first = tuple(Difference(key, what) for key, what in list(groups.items())[:10])
        yield Line(f"table usage = {table}", Side("table usage", left), Side(table, right), len(groups), first, notes)


def _sums(
    store: Store, table: str, column: str, bucket: str, day: str
) -> tuple[dict[str, int], dict[str, int], dict[str, str]]:
    """The sums of the facts, those of the rollup, and the groups in which they differ."""
    keys = ", ".join(DIMENSIONS)
    of_facts = ", ".join(f"{sql} AS {name}" for name, sql in SUMMED.items())
    of_rollup = ", ".join(f"sum({table}.{name}) AS {name}" for name in SUMMED)
    since_facts = f"WHERE created_at >= toDateTime64('{day} 00:00:00', 6, 'UTC')" if day else ""
    since_rollup = f"WHERE {column} >= toDate('{day}')" if day else ""
    sides = ", ".join(
        f"sumIf(toInt64(s.{name}), s.side = 1) AS l_{name}, sumIf(toInt64(s.{name}), s.side = 2) AS r_{name}"
        for name in SUMMED
    )
    differs = " OR ".join(["countIf(s.side = 1) != countIf(s.side = 2)", *(f"l_{name} != r_{name}" for name in SUMMED)])
    shown = ", ".join(f"'{name}', toString(l_{name}), toString(r_{name})" for name in SUMMED)
    totals = ", ".join(f"sum(l_{name}) AS left_{name}, sum(r_{name}) AS right_{name}" for name in SUMMED)
    sql = f"""
        SELECT {totals}, groupArrayIf({MOST_GROUPS})((name, shown), differs) AS groups FROM (
            SELECT toString((toString(s.bucket), {", ".join(f"s.{name}" for name in DIMENSIONS)})) AS name, {sides},
                ({differs}) AS differs, [{shown}] AS shown
            FROM (
                SELECT {bucket} AS bucket, {keys}, {of_facts}, 1 AS side FROM usage {since_facts} GROUP BY bucket, {keys}
                UNION ALL
                SELECT {column} AS bucket, {keys}, {of_rollup}, 2 AS side FROM {table} {since_rollup} GROUP BY bucket, {keys}
            ) AS s GROUP BY s.bucket, {", ".join(f"s.{name}" for name in DIMENSIONS)}
        )"""  # noqa: S608
    row = store.rows(sql)[0]
    groups = {}
    for key, values in row["groups"]:
        figures = [tuple(values[at : at + 3]) for at in range(0, len(values), 3)]
        unequal = [
            f"{name} {ours} in table usage, {theirs} in {table}" for name, ours, theirs in figures if ours != theirs
        ]
        groups[key] = "; ".join(unequal) or "is in one of them only"
    left, right = ({name: int(row[f"{side}_{name}"] or 0) for name in SUMMED} for side in ("left", "right"))
    return left, right, groups
