"""Prompts and answers in ClickHouse beside the events that hold them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from cli.reconcile.entries import BodyEntry, body_book
from cli.reconcile.store import left_out, part_of, streamed
from cli.reconcile.topics import Told
from cli.reconcile.watermark import Watermark
from config.settings import Settings
from core.reconcile import Line, compare, not_compared
from sinks import bodies
from sinks.query import Store
from sinks.rows import FACTS

#: Text that is kept is hashed again, so that a body that was changed shows.
_COLUMNS = (
    "kafka_partition, kafka_offset, ce_id, body_bytes, kind, request_id, tenant, user, sha256, "
    "if(body = '', sha256, lower(hex(SHA256(body)))), body = ''"
)


def body_lines(
    store: Store, settings: Settings, entry: BodyEntry, told: Told, marks: Watermark, progress: Callable[[str], None]
) -> Iterator[Line]:
    """A line a topic whose events hold bodies: those that its events give, beside the rows of `bodies`."""
    for fact in FACTS:
        if fact.record not in bodies.BODIES:
            continue
        name = f"{fact.topic.name} = rows of bodies"
        if entry.keep == "off":
            yield not_compared(name, f"{fact.topic.name} topic", "table bodies", "MILLSTREAM_BODIES is off")
            continue
        progress(f"Reading the bodies of {fact.topic.name} ...")
        mark = marks.marks[fact.topic.name]
        part = part_of(settings, fact, mark)
        rows, hashed = body_book("table bodies"), Counter[bool]()
        since = f"toUnixTimestamp64Milli(logged_at) >= {entry.since_ms}"
        for *row, without_text in streamed(store, f"SELECT {_COLUMNS} FROM bodies WHERE {part.inside} AND {since}"):  # noqa: S608
            entry.row(rows, row)
            hashed[bool(without_text)] += 1
        expected = told.bodies[fact.table]
        notes = left_out(store, bodies.TABLE, part, mark, expected, rows)
        if expired := entry.expired[fact.record]:
            notes.append(f"{expired:,} bodies older than {bodies.KEEP_DAYS} days, which are not kept for longer")
        if entry.keep == "full" and hashed[True]:
            notes.append(f"the text of {hashed[True]:,} bodies, stored when MILLSTREAM_BODIES was hash")
        yield compare(name, expected, rows, notes)
