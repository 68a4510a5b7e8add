"""Enter facts and bodies into books, whether they come from events or from ClickHouse."""

from __future__ import annotations

from collections import Counter
from hashlib import sha256
from typing import Any
from zlib import crc32

from confluent_kafka import Message

from core.pricing import TOKEN_CLASSES
from core.reconcile import Book
from schemas.codec import Event
from sinks import bodies
from sinks.rows import Fact, columns_of

TOKENS = tuple(f"tokens_{name}" for name in TOKEN_CLASSES)

#: What the rows of a fact table are summed by.
FIGURES: dict[str, tuple[str, ...]] = {
    "usage": ("rows", *TOKENS, "cost_nano_usd"),
    "responses": ("rows", *TOKENS, "cost_nano_usd"),
}

#: Rows are dropped when their time has come: those that come close to it while they are read are not compared.
EXPIRING_MS = 3_600_000
DAY_MS = 86_400_000


def fact_book(name: str, fact: Fact) -> Book:
    """An empty account of a fact table's rows."""
    return Book(name, FIGURES.get(fact.table, ("rows",)), [c.name for c in columns_of(fact.record)])


class RowEntry:
    """Enters rows of one fact table, whole."""

    def __init__(self, fact: Fact) -> None:
        names = [column.name for column in columns_of(fact.record)]
        self._figures = [names.index(name) for name in FIGURES.get(fact.table, ())[1:]]

    def enter(self, book: Book, row: list[Any]) -> None:
        """Enter a row, its values in the order of `columns_of`: times as integers, everything else as JSON has it."""
        amounts = (1, *(row[index] for index in self._figures))
        book.add((row[1], row[2]), amounts, row[3] or f"{row[1]}/{row[2]}", _details(row))


def body_book(name: str) -> Book:
    """An empty account of bodies."""
    return Book(name, ("rows", "body_bytes"), ("kind", "request_id", "tenant", "user", "sha256", "body"))


class BodyEntry:
    """Enters bodies as far as they are kept and their time to live has not come; `expired` counts the others by record type."""

    def __init__(self, keep: bodies.Keep, now_us: int) -> None:
        self.keep = keep
        self.since_ms = now_us // 1_000 - bodies.KEEP_DAYS * DAY_MS + EXPIRING_MS
        self.expired: Counter[str] = Counter()

    def event(self, book: Book, record: str, event: Event, message: Message, identity: str) -> None:
        """Enter the body that an event holds, if it holds one."""
        if self.keep == "off" or record not in bodies.BODIES:
            return
        if message.timestamp()[1] < self.since_ms:
            self.expired[record] += 1
            return
        kind, field = bodies.BODIES[record]
        text = bodies.as_json(event[field])
        digest = sha256(text).hexdigest()
        who = [event[name] or "" for name in ("request_id", "tenant", "user")]
        self.row(book, [message.partition(), message.offset(), identity, len(text), kind, *who, digest, digest])

    def row(self, book: Book, row: list[Any]) -> None:
        """Enter partition, offset, event id, bytes, and the columns of `body_book`; for the body, the SHA-256 of its text."""
        book.add((row[0], row[1]), (1, row[3]), row[2] or f"{row[0]}/{row[1]}", _details(row[4:]))


def _details(values: list[Any]) -> bytes:
    return b"".join(crc32(_text(value)).to_bytes(4, "big") for value in values)


def _text(value: Any) -> bytes:
    if isinstance(value, float):
        value = f"{value:.17g}"
    elif isinstance(value, dict):
        value = sorted(value.items())
    elif isinstance(value, bool):
        value = int(value)
    return repr(value).encode()
