"""What must hold when it is quiet again: all that `reconcile` compares, and what only the one who published can know."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable

from sqlalchemy import Connection, select
from sqlalchemy.exc import SQLAlchemyError

from cli.chaos.callers import refused_line, untouched_line
from cli.chaos.energy import overdrawn, still_reserved
from cli.chaos.features import features_line, used
from cli.chaos.limits import overspent, still_held
from cli.chaos.streams import streamed_line
from cli.chaos.traffic import Traffic
from cli.chaos.world import World
from cli.reconcile.gather import reconcile
from cli.reconcile.provider import provider_account
from cli.reconcile.topics import BESIDE
from cli.reconcile.watermark import Log
from config import audit
from config.database import open_database, reading
from config.models import ATTEMPTS, REQUESTS
from core.reconcile import Book, Line, compare
from core.topics import DEAD_LETTERS, RESPONSES
from schemas.codec import Codec, Undecodable
from sinks.partition import event_id
from sinks.query import Store


def settled(world: World) -> bool:
    """Whether the ledger knows every answer and holds no reservation; False while its database does not answer."""
    engine = open_database(world.run.settings.database_url)
    try:
        with reading(engine) as db:
            totals = audit.totals(db)
        return totals.unanswered == totals.unsettled == totals.reserved_nano == 0
    except SQLAlchemyError:
        return False
    finally:
        engine.dispose()


def verify(world: World, traffic: Traffic, progress: Callable[[str], None]) -> list[Line]:
    """Every comparison. Raises what `reconcile` raises."""
    settings, simulator = world.run.settings, world.run.stack.simulator_url
    lines = reconcile(settings, None, simulator, progress).lines
    answers, letters = _published(world)
    assert simulator is not None
    calls = Counter(call["client_request_id"] for call in provider_account(simulator).calls)
    disbelieved = {one: code for one, code in traffic.disbelieved.items() if one in traffic.ids}
    engine = open_database(settings.database_url)
    with reading(engine) as db:
        untouched = untouched_line(disbelieved, calls, db)
    engine.dispose()
    store = Store(settings)
    found = used(store)
    store.close()
    return [
        *lines,
        _answered(traffic, answers, letters),
        _same_bytes(answers),
        _called_once(calls),
        streamed_line(settings),
        _nothing_open(world),
        _within_limits(world),
        refused_line(disbelieved, _codes(answers, disbelieved)),
        untouched,
        features_line(traffic.asked.times, found),
    ]


Answers = dict[str, dict[str, list[bytes]]]


def _published(world: World) -> tuple[Answers, set[str]]:
    """The answers' bytes by request id and event id, and whom the dead letters are about: keys and topic/partition/offset."""
    codec = Codec()
    answers: Answers = defaultdict(lambda: defaultdict(list))
    letters: set[str] = set()
    log = Log(world.run.settings)
    try:
        for message in log.messages(RESPONSES, *log.bounds(RESPONSES)):
            if _is_own(codec, message.value()):
                key = (message.key() or b"").decode("ascii", "replace")
                answers[key][(event_id(message) or b"").decode("ascii", "replace")].append(message.value())
        for message in log.messages(DEAD_LETTERS, *log.bounds(DEAD_LETTERS)):
            letter = codec.decode(DEAD_LETTERS.record, message.value())
            letters.add(f"{letter['topic']}/{letter['partition']}/{letter['offset']}")
            letters.add((letter["key"] or b"").decode("ascii", "replace"))
    finally:
        log.close()
    return answers, letters


def _is_own(codec: Codec, value: bytes) -> bool:
    """Whether an answer is a request's own, not one that stands beside it for a second record with its id."""
    try:
        error = codec.decode(RESPONSES.record, value)["error"]
    except Undecodable:
        return True
    return (error or {}).get("code") != BESIDE[0]


def _codes(answers: Answers, ids: Iterable[str]) -> dict[str, str]:
    """With which code each of these requests was refused; one that was not is left out."""
    codec, found = Codec(), {}
    for one in ids:
        for answer in (
            codec.decode(RESPONSES.record, value) for values in answers.get(one, {}).values() for value in values
        ):
            if answer["outcome"] == "refused" and answer["error"] is not None:
                found[one] = answer["error"]["code"]
    return found


def _answered(traffic: Traffic, answers: Answers, letters: set[str]) -> Line:
    asked, answered = Book("published", ["requests"]), Book("answers and dead letters", ["requests"])
    for each in (*traffic.ids, *traffic.places):
        asked.add(each, (1,))
        if each in answers:
            answered.add(each, (len(answers[each]),))
        elif each in letters:
            answered.add(each, (1,))
    for stranger in answers.keys() - traffic.ids:
        answered.add(stranger, (len(answers[stranger]),))
    return compare("published requests = answers or dead letters, one each", asked, answered)


def _same_bytes(answers: Answers) -> Line:
    events, versions = Book("answers", ["versions"]), Book("bytes published for them", ["versions"])
    for own in answers.values():
        for identity, values in own.items():
            events.add(identity, (1,))
            versions.add(identity, (len(set(values)),))
    return compare("an answer published again = the same bytes", events, versions)


def _called_once(calls: Counter[str | None]) -> Line:
    once, seen = Book("calls", ["times"]), Book("provider", ["times"])
    for attempt, times in calls.items():
        once.add(attempt or "a call without an id", (1,))
        seen.add(attempt or "a call without an id", (times,))
    return compare("every call seen once by its provider", once, seen)


def _nothing_open(world: World) -> Line:
    held, none = Book("ledger", ["open"]), Book("nothing", ["open"])
    engine = open_database(world.run.settings.database_url)
    try:
        with reading(engine) as db:
            for what in _open(db):
                held.add(what, (1,))
    finally:
        engine.dispose()
    return compare("reservations, requests and calls left open in the ledger = nothing", held, none)


def _open(db: Connection) -> list[str]:
    requests = select(REQUESTS.c.request_id, REQUESTS.c.reserved_nano).where(
        (REQUESTS.c.reserved_nano != 0) | REQUESTS.c.answer.is_(None)
    )
    calls = select(ATTEMPTS.c.request_id, ATTEMPTS.c.number).where(ATTEMPTS.c.settled.is_(False))
    totals = audit.totals(db)
    found = [f"request {row.request_id} (reserved {row.reserved_nano} nano-USD)" for row in db.execute(requests)]
    found += [f"call {row.number} of request {row.request_id}" for row in db.execute(calls)]
    if totals.reserved_nano and not found:
        found.append(f"accounts (reserved {totals.reserved_nano} nano-USD)")
    return found + still_held(db) + still_reserved(db)


def _within_limits(world: World) -> Line:
    beyond, none = Book("ledger", ["accounts"]), Book("nothing", ["accounts"])
    engine = open_database(world.run.settings.database_url)
    try:
        with reading(engine) as db:
            found = world.overspent | overspent(db) | overdrawn(db)
    finally:
        engine.dispose()
    for account in sorted(found):
        beyond.add(account, (1,))
    for what in ("limits", "energy"):
        if not world.looks[what]:
            beyond.add(f"no look at {what} was taken", (1,))
    return compare("accounts beyond a hard limit or their energy at any look = nothing", beyond, none)
