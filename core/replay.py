"""Sending a dead letter's record again: the two headers that say so, and whether it may be sent at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

#: Header of a record that was sent again: how often it has been a dead letter, in decimal.
TIMES_SEEN = "millstream-times-seen"
#: Header of a record that was sent again: `topic/partition/offset` of the record that became the dead letter.
REPLAY_OF = "millstream-replay-of"
#: What ends a dead letter's sentence when its value was too large to be carried.
NOT_CARRIED = "The value is too large to be carried here."

MOST_TIMES = 1_000_000

Headers = Sequence[tuple[str, bytes | None]]
Fate = Literal["send", "sent before", "too many cycles", "not carried", "sink's", "log is gone"]


@dataclass(frozen=True, slots=True)
class Rejected:
    """What decides about a dead letter: where its record stood, who rejected it, and how often it has been one.

    `carried` is false when the letter could not hold the record's value, `known_to_sink` true for the sink's own letter about
    an event with an id, which it drops as a repetition when it comes again.
    """

    topic: str
    partition: int
    offset: int
    stage: str
    times_seen: int
    carried: bool
    known_to_sink: bool

    @property
    def place(self) -> str:
        """`topic/partition/offset` of the record."""
        return f"{self.topic}/{self.partition}/{self.offset}"

    @property
    def cycles(self) -> int:
        """How often the record has been sent again."""
        return self.times_seen - 1


def times_seen(headers: Headers) -> int:
    """How often the record with these headers was a dead letter before; 0 for a header that is no such number."""
    value = next((value for name, value in headers if name == TIMES_SEEN), None) or b""
    return min(int(value), MOST_TIMES) if value.isdigit() and len(value) <= 9 else 0


def replay_of(headers: Headers) -> bytes | None:
    """The place that the record was sent again from, None for a record that came by itself."""
    return next((value for name, value in headers if name == REPLAY_OF), None)


def headers_again(headers: Headers, letter: Rejected) -> list[tuple[str, bytes | None]]:
    """The original headers in their order, then the two that say that the record was sent again."""
    original = [(name, value) for name, value in headers if name not in (TIMES_SEEN, REPLAY_OF)]
    return [*original, (TIMES_SEEN, str(letter.times_seen).encode()), (REPLAY_OF, letter.place.encode())]


def fate_of(letter: Rejected, max_cycles: int, bounds: tuple[int, int] | None, sent_again: bool) -> Fate:
    """What becomes of a dead letter.

    `bounds` are the first offset and the end of the partition that its record stood in, None where there is none any more.
    Only a log that has kept all that came after the record tells whether it was `sent_again`.
    """
    if letter.known_to_sink:
        return "sink's"
    if not letter.carried:
        return "not carried"
    if bounds is None or not bounds[0] - 1 <= letter.offset < bounds[1]:
        return "log is gone"
    if sent_again:
        return "sent before"
    return "too many cycles" if letter.cycles >= max_cycles else "send"
