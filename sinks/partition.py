"""One partition as the sink sees it: where it stands, what it has read and not yet stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import methodcaller
from typing import NamedTuple

from confluent_kafka import Message, TopicPartition

from schemas.cloudevents import CE_ID
from sinks.rows import Fact
from sinks.window import Window

BATCH_BYTES = 8_000_000
_HEADERS = methodcaller("headers")


class Resume(NamedTuple):
    """Where a partition goes on: `first` is the next offset to store, `last` the end of a batch that was begun."""

    first: int
    last: int | None


def resume_from(committed: int, metadata: str | None, low: int, high: int) -> Resume:
    """Where to go on after the committed offset (negative: none) and its metadata, in a log that reaches from `low` to `high`.

    A batch that was begun keeps its bounds, so that it is inserted under the same token. Records that are gone from the beginning
    of the log are a batch too, without a row.
    """
    if committed < 0 or committed > high:
        return Resume(low, None)
    first, _, last = (metadata or "").partition("-")
    if first.isdecimal() and last.isdecimal() and int(first) == committed <= int(last) < high:
        return Resume(committed, int(last))
    return Resume(committed, low - 1 if committed < low else None)


def headers_of(message: Message) -> list[tuple[str, bytes | None]]:
    """A record's headers; none where a name is not UTF-8.

    confluent-kafka 2.16 returns a list whose name no code may touch, and leaves an exception set. A call from C turns that into
    SystemError; Python's own calls do so only until they are specialised. The headers are taken away then.
    """
    try:
        found = _HEADERS(message) or []
    except SystemError:
        message.set_headers([])
        return []
    return [(name, value.encode() if isinstance(value, str) else value) for name, value in found]


def event_id(message: Message) -> bytes | None:
    """The CloudEvents id in a record's headers."""
    return next((value for name, value in headers_of(message) if name == CE_ID), None)


@dataclass(slots=True)
class Batch:
    """Consecutive records of one partition, stored under one token; `first` to `last` are its recorded bounds.

    It holds those that are in the log: none where retention has taken them all.
    """

    first: int
    last: int
    messages: list[Message]
    event_ids: list[bytes | None]


@dataclass(slots=True)
class Partition:
    """The state of one assigned partition.

    `first` is the committed offset, `last` the recorded end of the batch under way, `batch` that batch once it is complete.
    `problem` says why its last attempt failed.
    """

    topic: str
    number: int
    fact: Fact
    first: int
    last: int | None
    window: Window
    next_offset: int
    batch: Batch | None = None
    since: float = 0.0
    failures: int = 0
    retry_at: float = 0.0
    problem: str = ""
    _messages: list[Message] = field(default_factory=list)
    _bytes: int = 0
    _begun: bool = False

    def take(self, messages: Sequence[Message], now: float) -> bool:
        """Take what was read; False when it does not go on where this partition stands, so that it must be sought again.

        Only the first records after an assignment or a pause are checked: later gaps are those of the log (transaction markers,
        https://kafka.apache.org/documentation/#semantics).
        """
        if not self._begun:
            self._begun = True
            if messages[0].offset() > self.next_offset:
                return False
        for message in messages:
            offset = message.offset()
            if offset < self.next_offset:
                continue
            self.next_offset = offset + 1
            if offset < self.first:
                self.window.note(event_id(message), offset)
                continue
            if not self._messages:
                self.since = now
            self._messages.append(message)
            self._bytes += len(message.value() or b"")
        return True

    def skip_to(self, offset: int) -> None:
        """The log begins at `offset` now, behind what was to be read next."""
        self.next_offset = max(self.next_offset, offset)
        self._bridge()

    def due(self, rows: int, seconds: float, now: float) -> bool:
        """Whether a batch can be stored now."""
        if self.batch is not None:
            return now >= self.retry_at
        if self.last is not None:
            return self.next_offset > self.last
        if not self._messages:
            return False
        return len(self._messages) >= rows or self._bytes >= BATCH_BYTES or now - self.since >= seconds

    def begin(self, rows: int) -> Batch:
        """The batch to store: the one under way, else as much as one batch may hold, of which the bounds are now fixed."""
        if self.batch is None:
            count = self._count_to(self.last) if self.last is not None else self._count_of(rows)
            messages, self._messages = self._messages[:count], self._messages[count:]
            self._bytes = sum(len(message.value() or b"") for message in self._messages)
            last = self.last if self.last is not None else messages[-1].offset()
            self.batch = Batch(self.first, last, messages, [event_id(message) for message in messages])
        return self.batch

    def waiting_since_ms(self) -> int | None:
        """The time of the oldest record that is read and not stored, None without one; any thread may ask."""
        batch = self.batch
        waiting = (batch.messages if batch is not None else None) or self._messages
        return waiting[0].timestamp()[1] if waiting else None

    def finish(self, now: float) -> None:
        """The batch under way is stored and committed."""
        assert self.batch is not None
        for message, identity in zip(self.batch.messages, self.batch.event_ids, strict=True):
            self.window.note(identity, message.offset())
        self.first = self.window.next_offset = self.batch.last + 1
        self.window.forget_old()
        self._begun = self._begun and not self.failures
        self.batch, self.last, self.failures, self.since, self.problem = None, None, 0, now, ""
        self._bridge()

    def position(self, offset: int, metadata: str = "") -> TopicPartition:
        """What to commit for this partition."""
        return TopicPartition(self.topic, self.number, offset, metadata)

    def _bridge(self) -> None:
        """Where nothing is left to store before what is read next, make that gap a batch, so that it is committed."""
        if self.batch is None and self.last is None and not self._messages and self.next_offset > self.first:
            self.last = self.next_offset - 1

    def _count_to(self, last: int) -> int:
        return sum(message.offset() <= last for message in self._messages)

    def _count_of(self, rows: int) -> int:
        size = 0
        for count, message in enumerate(self._messages[:rows]):
            size += len(message.value() or b"")
            if size > BATCH_BYTES and count:
                return count
        return min(rows, len(self._messages))
