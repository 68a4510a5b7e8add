"""Turn one batch of records into inserts, and what has no row into dead letters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Message

from schemas.codec import Codec, Event, Undecodable
from sinks import bodies
from sinks.partition import Batch, Partition
from sinks.rows import Column, Fact, columns_of, values_of

#: A row's partition and the rollups count in DateTime, which ends in 2106; Date ends in 2149.
_MICROSECONDS_END = (1 << 32) * 1_000_000
_DAYS_END = 1 << 16


@dataclass(slots=True)
class Rejected:
    """A record that has no row, and the sentence that says why."""

    message: Message
    reason: str


@dataclass(frozen=True, slots=True)
class Insert:
    """The rows of a batch for one table, encoded."""

    table: str
    body: bytes
    rows: int


@dataclass(slots=True)
class Prepared:
    """What a batch comes to: one insert a table (none without rows), and the records that have no row.

    A function of the log and of what is kept of bodies.
    """

    inserts: list[Insert] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)


Encode = Callable[[str, list[list[Any]]], bytes]


def prepare(partition: Partition, batch: Batch, codec: Codec, encode: Encode, keep: bodies.Keep) -> Prepared:
    """The rows of a batch, without the events that repeat an earlier one, encoded for ClickHouse.

    `encode` makes the body of an insert from a table's columns; `keep` says what becomes of prompts and answers.
    Raises what the codec's schema registry raises when it is away.
    """
    messages, ids = batch.messages, batch.event_ids
    offsets = [message.offset() for message in messages]
    repeated = partition.window.repetitions(zip(ids, offsets, strict=True))
    name, decode = partition.fact.record, codec.decode_blocking
    prepared = Prepared()
    events: list[Event] = []
    places: list[int] = []
    for index, message in enumerate(messages):
        if offsets[index] in repeated:
            continue
        try:
            events.append(decode(name, message.value()))
            places.append(index)
        except Undecodable as error:
            if not partition.fact.read_by_stage:
                prepared.rejected.append(Rejected(message, str(error)))
    events, places = _placeable(partition.fact, events, places, messages, prepared)

    def placed(chosen: Sequence[int]) -> tuple[list[Event], str, int, list[Any], list[Any]]:
        identities = [(ids[places[row]] or b"").decode("utf-8", "replace") for row in chosen]
        positions = [offsets[places[row]] for row in chosen]
        return [events[row] for row in chosen], partition.topic, partition.number, positions, identities

    def facts(chosen: Sequence[int]) -> bytes:
        return encode(partition.fact.table, values_of(name, *placed(chosen)))

    rows: Sequence[int] = range(len(events))
    if rows:
        try:
            body = facts(rows)
        except Exception:  # a value outside its column's type: an Avro int may carry more than 32 bits
            rows = _encodable(rows, facts, [messages[place] for place in places], prepared)
            body = facts(rows) if rows else b""
    if rows:
        prepared.inserts.append(Insert(partition.fact.table, body, len(rows)))
    if rows and keep != "off" and name in bodies.BODIES:
        logged_ms = [messages[places[row]].timestamp()[1] for row in rows]
        kept = bodies.bodies_of(name, *placed(rows), logged_ms, keep)
        prepared.inserts.append(Insert(bodies.TABLE, encode(bodies.TABLE, kept), len(rows)))
    prepared.rejected.sort(key=lambda rejected: rejected.message.offset() or 0)
    return prepared


def _encodable(
    rows: Sequence[int], body: Callable[[Sequence[int]], bytes], messages: list[Message], prepared: Prepared
) -> list[int]:
    """The rows that can be encoded one by one; the others are rejected."""
    good = []
    for row in rows:
        try:
            body([row])
            good.append(row)
        except Exception as error:
            sentence = f"The event has a value that its column cannot hold ({type(error).__name__})."
            prepared.rejected.append(Rejected(messages[row], sentence))
    return good


def _placeable(
    fact: Fact, events: list[Event], places: list[int], messages: list[Message], prepared: Prepared
) -> tuple[list[Event], list[int]]:
    """The events whose dates the table can hold; the others are rejected."""
    limits = [(fact.time, _MICROSECONDS_END), *((name, _DAYS_END) for name in _date_fields(fact))]
    bad: set[int] = set()
    for name, end in limits:
        for index, event in enumerate(events):
            value = event[name]
            if value is not None and not 0 <= value < end and index not in bad:
                bad.add(index)
                sentence = (
                    f"Field {name} has the value {value}, which is not between 1970 and the end of the table's range."
                )
                prepared.rejected.append(Rejected(messages[places[index]], sentence))
    if not bad:
        return events, places
    good = [index for index in range(len(events)) if index not in bad]
    return [events[index] for index in good], [places[index] for index in good]


def _date_fields(fact: Fact) -> list[str]:
    columns: tuple[Column, ...] = columns_of(fact.record)
    return [column.field for column in columns if column.field and column.type in ("Date", "Nullable(Date)")]
