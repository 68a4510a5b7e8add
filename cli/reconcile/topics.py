"""Read the topics up to the watermark and enter what they say, so that it can be held against the others."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from cli.reconcile.entries import BodyEntry, RowEntry, body_book, fact_book
from cli.reconcile.watermark import Log, Mark, Seen, Watermark
from core.admission import UUID
from core.pricing import TOKEN_CLASSES
from core.reconcile import Amounts, Book
from core.topics import DEAD_LETTERS, REQUESTS, RESPONSES, USAGE
from core.trust import NOT_KEPT
from schemas.codec import Codec, Event, Undecodable
from sinks.dead_letters import STAGE as SINK_STAGE
from sinks.rows import FACTS, values_of

#: Codes of answers that a request id can get beside its own.
BESIDE = ("caller_request_id_reused", "caller_undecodable", *NOT_KEPT)


@dataclass(frozen=True, slots=True)
class Answer:
    """A request's own answer; `tokens` are those of the call `attempt_id`, `model` is the `provider/model` that completed it.

    `cached` is one that the response cache gave.
    """

    attempt_id: str | None
    calls: int
    cost: int | None
    tokens: Amounts | None
    finished_at: int
    model: str | None
    cached: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """A usage event; `bound` counts against its account while the cost is None; `metered` when the meter has acknowledged it."""

    attempt_id: str
    request_id: str
    number: int
    tenant: str
    admitted_at: int
    finished_at: int
    provider: str
    status: str
    reason: str
    tokens: Amounts
    cost: int | None
    bound: int
    metered: bool

    @property
    def all_tokens(self) -> int:
        """The tokens of all classes that are known."""
        return sum(tokens or 0 for tokens in self.tokens)

    @property
    def charged(self) -> int:
        """What counts of it against limits of money."""
        return self.bound if self.cost is None else self.cost


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: its place `topic/partition/offset`, when Kafka took it, and its deadline (microseconds since 1970).

    Of a request from before the part of the log that is compared, `place` is empty and `deadline_us` None.
    """

    place: str
    at_us: int
    deadline_us: int | None


@dataclass(slots=True)
class Told:
    """What the topics say. `due` are the requests that must have an answer, by id or by place."""

    due: dict[str, Asked] = field(default_factory=dict)
    under_way: dict[str, Asked] = field(default_factory=dict)
    too_old: set[str] = field(default_factory=set)
    answers: dict[str, dict[str, Answer]] = field(default_factory=dict)
    answered_beside: set[str] = field(default_factory=set)
    letters: set[str] = field(default_factory=set)
    #: Usage events by their event ids, or by their places where they have none; answers too, by request.
    calls: dict[str, Call] = field(default_factory=dict)
    adjustments: dict[str, Call] = field(default_factory=dict)
    #: The requests that the usage events of the response cache are about, by the events' ids.
    hits: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Book] = field(default_factory=dict)
    #: The bodies that the facts of a table come with.
    bodies: dict[str, Book] = field(default_factory=dict)


def read_topics(log: Log, marks: Watermark, codec: Codec, bodies: BodyEntry, progress: Callable[[str], None]) -> Told:
    """What stands in the topics between the marks."""
    told = Told()
    rejected: set[tuple[str, int, int]] = set()
    # The dead letters first: they say what the sink could not store.
    for fact in sorted(FACTS, key=lambda fact: fact.topic is not DEAD_LETTERS):
        mark = marks.marks[fact.topic.name]
        progress(f"Reading {mark.records:,} records of {fact.topic.name} ...")
        book, entry = fact_book(f"{fact.topic.name} topic", fact), RowEntry(fact)
        told.facts[fact.table], told.bodies[fact.table] = book, body_book(f"{fact.topic.name} topic")
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
                bodies.event(told.bodies[fact.table], fact.record, event, seen.message, identity)
    for key, at_us in marks.under_way.items():
        identity = key.decode("ascii", "replace")
        told.under_way.setdefault(identity, told.due.get(identity, Asked("", at_us, None)))
    for identity in (*told.under_way, *told.too_old):
        told.due.pop(identity, None)
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
    asked = Asked(place, seen.message.timestamp()[1] * 1_000, event["deadline"] if event is not None else None)
    if seen.offset >= mark.handled[seen.partition]:
        told.under_way[identity] = asked
    elif seen.offset < mark.due[seen.partition]:
        told.too_old.add(identity)
    else:
        told.due[identity] = asked


def _answer(told: Told, seen: Seen, event: Event | None, mark: Mark) -> None:
    if event is None or seen.repeated:
        return
    request_id = event["request_id"]
    own = uuid.uuid5(uuid.NAMESPACE_URL, f"{request_id}/response")
    if (seen.event_id or b"").decode("ascii", "replace") != str(own) and (event["error"] or {}).get("code") in BESIDE:
        told.answered_beside.add(request_id)
        return
    completed = event["outcome"] == "completed" and event["cached_from"] is None
    answer = Answer(
        event["attempt_id"], event["attempts"], event["cost_nano_usd"], _tokens(event["tokens"]), event["finished_at"],
        f"{event['provider']}/{event['model']}" if completed else None, event["cached_from"] is not None,
    )  # fmt: skip
    told.answers.setdefault(request_id, {})[_identity(seen)] = answer


def _usage(told: Told, seen: Seen, event: Event | None, mark: Mark) -> None:
    if event is None or seen.repeated:
        return
    if event["reason"] == "cached":
        told.hits[_identity(seen)] = event["request_id"]
        return
    call = Call(
        event["attempt_id"], event["request_id"], event["attempt"], event["tenant"], event["admitted_at"], event["finished_at"],
        event["provider"], event["status"], event["reason"], _tokens(event["tokens"]) or (), event["cost_nano_usd"],
        event["reserved_nano_usd"] or 0, seen.offset < mark.handled[seen.partition],
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
