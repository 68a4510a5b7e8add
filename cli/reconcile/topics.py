"""Read the topics up to the watermark and enter what they say, so that it can be held against the others."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

from cli.reconcile.watermark import Log, Mark, Seen, Watermark
from core.admission import UUID
from core.pricing import TOKEN_CLASSES
from core.reconcile import Amounts, Book
from core.topics import DEAD_LETTERS, REQUESTS, RESPONSES, USAGE
from schemas.codec import Codec, Event, Undecodable
from sinks.dead_letters import STAGE as SINK_STAGE
from sinks.rows import FACTS, Fact, columns_of, values_of

#: Codes of answers that a request id can get beside its own.
BESIDE = ("caller_request_id_reused", "caller_undecodable")
TOKENS = tuple(f"tokens_{name}" for name in TOKEN_CLASSES)

#: What the rows of a fact table are summed by.
FIGURES: dict[str, tuple[str, ...]] = {
    "usage": ("rows", *TOKENS, "cost_nano_usd"),
    "responses": ("rows", *TOKENS, "cost_nano_usd"),
}


@dataclass(frozen=True, slots=True)
class Answer:
    """A request's own answer; `tokens` are those of the call `attempt_id`."""

    attempt_id: str | None
    calls: int
    cost: int | None
    tokens: Amounts | None
    finished_at: int


@dataclass(frozen=True, slots=True)
class Call:
    """A usage event; `metered` when the meter has acknowledged it."""

    attempt_id: str
    request_id: str
    number: int
    tenant: str
    admitted_at: int
    finished_at: int
    provider: str
    status: str
    tokens: Amounts
    cost: int | None
    metered: bool


@dataclass(slots=True)
class Told:
    """What the topics say. `due` are the requests that must have an answer, by id or by `topic/partition/offset`."""

    due: dict[str, str] = field(default_factory=dict)
    under_way: set[str] = field(default_factory=set)
    too_old: set[str] = field(default_factory=set)
    answers: dict[str, dict[str, Answer]] = field(default_factory=dict)
    answered_beside: set[str] = field(default_factory=set)
    letters: set[str] = field(default_factory=set)
    #: Usage events by their event ids, or by their places where they have none; answers too, by request.
    calls: dict[str, Call] = field(default_factory=dict)
    adjustments: dict[str, Call] = field(default_factory=dict)
    facts: dict[str, Book] = field(default_factory=dict)


def fact_book(name: str, fact: Fact) -> Book:
    """An empty account of a fact table's rows."""
    return Book(name, FIGURES.get(fact.table, ("rows",)), [c.name for c in columns_of(fact.record)])


class RowEntry:
    """Enters rows of one fact table, whole, whether they come from an event or from ClickHouse."""

    def __init__(self, fact: Fact) -> None:
        names = [column.name for column in columns_of(fact.record)]
        self._figures = [names.index(name) for name in FIGURES.get(fact.table, ())[1:]]

    def enter(self, book: Book, row: list[Any]) -> None:
        """Enter a row, its values in the order of `columns_of`: times as integers, everything else as JSON has it."""
        amounts = (1, *(row[index] for index in self._figures))
        details = b"".join(crc32(_text(value)).to_bytes(4, "big") for value in row)
        book.add((row[1], row[2]), amounts, row[3] or f"{row[1]}/{row[2]}", details)


def _text(value: Any) -> bytes:
    if isinstance(value, float):
        value = f"{value:.17g}"
    elif isinstance(value, dict):
        value = sorted(value.items())
    elif isinstance(value, bool):
        value = int(value)
    return repr(value).encode()


def read_topics(log: Log, marks: Watermark, codec: Codec, progress: Callable[[str], None]) -> Told:
    """What stands in the topics between the marks."""
    told = Told(under_way={key.decode("ascii", "replace") for key in marks.under_way})
    rejected: set[tuple[str, int, int]] = set()
    # The dead letters first: they say what the sink could not store.
    for fact in sorted(FACTS, key=lambda fact: fact.topic is not DEAD_LETTERS):
        mark = marks.marks[fact.topic.name]
        progress(f"Reading {mark.records:,} records of {fact.topic.name} ...")
        book, entry = fact_book(f"{fact.topic.name} topic", fact), RowEntry(fact)
        told.facts[fact.table] = book
        for seen in log.seen(mark):
            event = _event(codec, fact.topic.record, seen)
            if (tell := _TELL.get(fact.topic.name)) is not None:
                tell(told, seen, event, mark)
            if event is not None and fact.topic is DEAD_LETTERS and event["stage"] == SINK_STAGE:
                rejected.add((event["topic"], event["partition"], event["offset"]))
            if event is None or seen.repeated or seen.offset >= mark.stored[seen.partition]:
                continue
            place = (seen.message.topic(), seen.partition, seen.offset)
            if place not in rejected:
                identity = (seen.event_id or b"").decode("utf-8", "replace")
                columns = values_of(fact.record, [event], place[0], place[1], [place[2]], [identity])
                entry.enter(book, [column[0] for column in columns])
    for key in (*told.under_way, *told.too_old):
        told.due.pop(key, None)
    return told


def _event(codec: Codec, record: str, seen: Seen) -> Event | None:
    try:
        return codec.decode_blocking(record, seen.message.value())
    except Undecodable:
        return None


def _request(told: Told, seen: Seen, event: Event | None, mark: Mark) -> None:
    key = (seen.message.key() or b"").decode("ascii", "replace")
    place = f"{seen.message.topic()}/{seen.partition}/{seen.offset}"
    identity = event["request_id"] if event is not None else key if UUID.fullmatch(key) else place
    if seen.offset >= mark.handled[seen.partition]:
        told.under_way.add(identity)
    elif seen.offset < mark.due[seen.partition]:
        told.too_old.add(identity)
    else:
        told.due[identity] = place


def _answer(told: Told, seen: Seen, event: Event | None, mark: Mark) -> None:
    if event is None or seen.repeated:
        return
    request_id = event["request_id"]
    own = uuid.uuid5(uuid.NAMESPACE_URL, f"{request_id}/response")
    if (seen.event_id or b"").decode("ascii", "replace") != str(own) and (event["error"] or {}).get("code") in BESIDE:
        told.answered_beside.add(request_id)
        return
    answer = Answer(
        event["attempt_id"], event["attempts"], event["cost_nano_usd"], _tokens(event["tokens"]), event["finished_at"]
    )

    told.answers.setdefault(request_id, {})[_identity(seen)] = answer


def _usage(told: Told, seen: Seen, event: Event | None, mark: Mark) -> None:
    if event is None or seen.repeated:
        return
    call = Call(
        event["attempt_id"], event["request_id"], event["attempt"], event["tenant"], event["admitted_at"], event["finished_at"],
        event["provider"], event["status"], _tokens(event["tokens"]) or (), event["cost_nano_usd"],
        seen.offset < mark.handled[seen.partition],
    )  # fmt: skip
    (told.calls if event["adjusts"] is None else told.adjustments)[_identity(seen)] = call


def _letter(told: Told, seen: Seen, event: Event | None, mark: Mark) -> None:
    if event is not None:
        told.letters.add(f"{event['topic']}/{event['partition']}/{event['offset']}")
        told.letters.add((event["key"] or b"").decode("ascii", "replace"))


def _identity(seen: Seen) -> str:
    return seen.event_id.decode("utf-8", "replace") if seen.event_id else f"{seen.partition}/{seen.offset}"


def _tokens(tokens: Event | None) -> Amounts | None:
    return tuple(tokens[name] for name in TOKEN_CLASSES) if tokens is not None else None


_TELL: dict[str, Callable[[Told, Seen, Event | None, Mark], None]] = {
    REQUESTS.name: _request,
    RESPONSES.name: _answer,
    USAGE.name: _usage,
    DEAD_LETTERS.name: _letter,
}
