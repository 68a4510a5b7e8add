"""The fact tables of ClickHouse beside the topics, row by row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from cli.reconcile.entries import RowEntry, fact_book
from cli.reconcile.topics import Told
from cli.reconcile.watermark import Mark, Watermark
from config.settings import Settings
from core.reconcile import Book, Line, compare
from sinks.query import Store
from sinks.rows import FACTS, Column, Fact, columns_of

#: So many ids stand in one question.
MOST_IDS = 1_000


@dataclass(frozen=True, slots=True)
class Part:
    """Conditions of SQL: `inside` for rows made of the part of a topic that is compared, `before` for those of earlier records."""

    inside: str
    before: str


def part_of(settings: Settings, fact: Fact, mark: Mark) -> Part:
    """The part from the mark's start to what the sink has stored."""
    topic = f"kafka_topic = {quoted(fact.topic.on(settings.topic_prefix))}"
    inside = [
        f"(kafka_partition = {number} AND kafka_offset >= {mark.start[number]} AND kafka_offset < {stored})"
        for number, stored in mark.stored.items()
    ]
    before = [f"(kafka_partition = {n} AND kafka_offset < {first})" for n, first in mark.start.items() if first]
    return Part(*(f"{topic} AND ({' OR '.join(ranges) or '0'})" for ranges in (inside, before)))


def fact_lines(
    store: Store, settings: Settings, told: Told, marks: Watermark, progress: Callable[[str], None]
) -> Iterator[Line]:
    """A line a fact table: the rows that its topic gives up to what the sink has committed, beside those that are there."""
    for fact in FACTS:
        progress(f"Reading the rows of {fact.table} ...")
        mark = marks.marks[fact.topic.name]
        part = part_of(settings, fact, mark)
        rows, entry = fact_book(f"table {fact.table}", fact), RowEntry(fact)
        chosen = ", ".join(as_number(column) for column in columns_of(fact.record))
        for row in streamed(store, f"SELECT {chosen} FROM `{fact.table}` WHERE {part.inside}"):  # noqa: S608
            entry.enter(rows, row)
        notes = left_out(store, fact.table, part, mark, told.facts[fact.table], rows)
        yield compare(f"{fact.topic.name} = rows of {fact.table}", told.facts[fact.table], rows, notes)


def streamed(store: Store, sql: str) -> Iterator[list[Any]]:
    """The rows of a query as they come, values as JSON has them."""
    rest = b""
    for chunk in store.output(sql, "JSONCompactEachRow"):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from map(orjson.loads, lines)


def left_out(store: Store, table: str, part: Part, mark: Mark, told: Book, rows: Book) -> list[str]:
    """What cannot be compared, and why. Events that repeat one from before the part are taken out of `told`."""
    notes = []
    if late := mark.not_yet(mark.stored):
        notes.append(f"{late:,} records that the sink has yet to store")
    older = int(store.rows(f"SELECT count() AS n FROM `{table}` WHERE {part.before}")[0]["n"])  # noqa: S608
    if older:
        why = "that the topic no longer holds" if mark.start == mark.low else "from before the time compared"
        notes.append(f"{older:,} rows {why}")
    if older and (again := told.without(_stored_before(store, table, part, told, rows))):
        notes.append(f"{again:,} events that repeat one from before that part of the topic")
    return notes


def _stored_before(store: Store, table: str, part: Part, told: Book, rows: Book) -> set[str]:
    """The ids of events without a row that have one from before the part: the sink dropped their repetition."""
    missing = [entry[1] for key, entry in told.entries.items() if key not in rows.entries]
    found: set[str] = set()
    for at in range(0, len(missing), MOST_IDS):
        ids = ", ".join(map(quoted, missing[at : at + MOST_IDS]))
        sql = f"SELECT ce_id FROM `{table}` WHERE ce_id IN ({ids}) AND {part.before}"  # noqa: S608
        found.update(row["ce_id"] for row in store.rows(sql))
    return found


def as_number(column: Column) -> str:
    """The column as SQL, a time or date as the number that an event has."""
    if "DateTime64" in column.type:
        return f"toUnixTimestamp64Micro(`{column.name}`)"
    return f"toInt32(`{column.name}`)" if "Date" in column.type else f"`{column.name}`"


def quoted(text: str) -> str:
    """Text as a literal of ClickHouse SQL."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
