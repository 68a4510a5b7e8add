"""Turn one batch of records into inserts, and what has no row into dead letters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Message

from schemas.codec import Codec, Event, SchemaNotLoaded, Undecodable
from sinks import bodies
from sinks.partition import Batch, Partition
from sinks.rows import Fact, columns_of, values_of, values_of_columns

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
    if partition.fact.by_columns:
        fresh = [index for index, offset in enumerate(offsets) if offset not in repeated]
        insert = _by_columns(partition, [messages[i] for i in fresh], [ids[i] for i in fresh], codec, encode)
        if insert is not None:
            prepared.inserts.append(insert)
            return prepared
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
        identities = _texts(ids[places[row]] for row in chosen)
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


def _by_columns(
    partition: Partition, messages: list[Message], ids: list[bytes | None], codec: Codec, encode: Encode
) -> Insert | None:
    """The rows of records that all fit the table, read column by column; None where one of them has to be looked at."""
    fact = partition.fact
    try:
        columns = codec.decode_columns(fact.record, [message.value() for message in messages])
    except SchemaNotLoaded:
        return None
    if not columns:
        return None
    for name, end in _limits(fact):
        values = [value for value in columns[name] if value is not None]
        if values and not 0 <= min(values) <= max(values) < end:
            return None
    offsets = [message.offset() for message in messages]
    rows = values_of_columns(fact.record, columns, partition.topic, partition.number, offsets, _texts(ids))
    try:
        return Insert(fact.table, encode(fact.table, rows), len(messages))
    except Exception:  # a value outside its column's type
        return None


def _texts(ids: Iterable[bytes | None]) -> list[str]:
    return [(identity or b"").decode("utf-8", "replace") for identity in ids]


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
    bad: set[int] = set()
    for name, end in _limits(fact):
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


def _limits(fact: Fact) -> list[tuple[str, int]]:
    """The fields of a fact's dates, each with the value from which on a table cannot hold it."""
    dates = [c.field for c in columns_of(fact.record) if c.field and c.type in ("Date", "Nullable(Date)")]
    return [(fact.time, _MICROSECONDS_END), *((name, _DAYS_END) for name in dates)]
