"""What a stage decides about one record: every handler returns one of these and never raises."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import Any

Headers = list[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Record:
    """A Kafka record as a stage gets it; `timestamp_us` is the record's own time in microseconds since 1970.

    `by_broker` says that the broker gave it this time when it took it, and not its producer.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp_us: int
    by_broker: bool = False


@dataclass(frozen=True, slots=True)
class Outgoing:
    """An event ready for the broker: logical topic name, key, value and headers.

    With `callers` the topic is one of a caller's own, by its name on the broker. `partition` None lets the key decide.
    """

    topic: str
    key: bytes
    value: bytes
    headers: Headers
    callers: bool = False
    partition: int | None = None


@dataclass(frozen=True, slots=True)
class Emit:
    """The record is dealt with once these events are on the broker."""

    events: tuple[Outgoing, ...]


@dataclass(frozen=True, slots=True)
class Drop:
    """The record is dealt with and nothing follows from it; the reason is logged."""

    reason: str


@dataclass(frozen=True, slots=True)
class Reject:
    """The record cannot be handled: it goes to the dead letters byte for byte, with `code` and `message`.

    `events` are published beside the dead letter.
    """

    code: str
    message: str
    events: tuple[Outgoing, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Fail:
    """The stage cannot go on (its database is away for good, say): the worker stops, the record stays unacknowledged."""

    message: str


Outcome = Emit | Drop | Reject | Fail


def pack(events: tuple[Outgoing, ...]) -> bytes:
    """The events as bytes for the ledger, so that a crash can republish them unchanged; `unpack` reads them."""
    return json.dumps([_packed(event) for event in events]).encode()


def unpack(packed: bytes) -> tuple[Outgoing, ...]:
    """The events that `pack` stored."""
    return tuple(
        Outgoing(topic, _bytes(key), _bytes(value), [(name, _bytes(v)) for name, v in headers], *callers)
        for topic, key, value, headers, *callers in json.loads(packed)
    )


def _packed(event: Outgoing) -> list[Any]:
    packed = [event.topic, _text(event.key), _text(event.value), [[name, _text(v)] for name, v in event.headers]]
    return [*packed, True, event.partition] if event.callers else packed


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text)
