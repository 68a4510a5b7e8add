"""What a change of limits counts anew, on SQLite and on PostgreSQL: what it reads, what it carries over, and whom it waits for."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, event, select, text, update

from cli.errors import CommandError
from cli.registry_change import database
from config import ledger, limits, settling, upkeep
from config.credentials import Change
from config.database import create_tables, open_database, reading
from config.issued_keys import NewKey, issue
from config.key_encryption import EncryptionKeys, LocalKey
from config.limit_audit import counted
from config.limit_models import COUNTERS, LIMITS
from config.models import ATTEMPTS, REQUESTS
from config.settings import Settings
from core.accounts import path_of
from core.attempts import Begin, OverLimit
from core.limits import Amounts, Asking, Limit
from core.windows import calendar
from tests.contract.book import DAY, NOW, Book

WHO = Limit("/acme/user:ana", "usd", "month", 1_000)
HOUR = DAY // 24


@contextmanager
def statements(engine: Engine) -> Iterator[list[str]]:
    """What the database is told meanwhile."""
    said: list[str] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        said.append(" ".join(statement.split()))

    event.listen(engine, "before_cursor_execute", note)
    yield said
    event.remove(engine, "before_cursor_execute", note)


def time_of(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000


def used(book: Book, at: int, nano: int = 100) -> str:
    """A request of that time which was answered at once and is settled, with what it cost."""
    one, admitted = book.admit(nano, now=at)
    assert admitted.kind == "new"
    assert isinstance(book.start(one, at), Begin)
    book.end(one, 1, nano)
    book.settle(one, 1, nano)
    with book.engine.begin() as db:
        db.execute(update(REQUESTS).where(REQUESTS.c.request_id == one).values(done_at=at))
    return one


def purge(book: Book, now: int) -> None:
    with book.engine.begin() as db:
        upkeep.purge(db, now, 8)


def test_a_change_that_counts_nothing_new_reads_no_request(book: Book) -> None:
    """Another amount, a soft limit in place of a hard one, a removed limit, the zone of a tenant without calendar windows."""
    limit, sliding = Limit("/acme", "usd", "day", 1_000), Limit("/globex", "tokens", "day", 9, sliding=True)
    book.put(limit, sliding)
    book.admit()
    with statements(book.engine) as said:
        book.put(Limit("/acme", "usd", "day", 500))
        book.put(Limit("/acme", "usd", "day", 500, hard=False))
        book.put(zones=[("globex", "Europe/Berlin")])
        book.put(remove=[limit])
    assert len(said) > 4
    assert [one for one in said if "requests" in one or "attempts" in one or "counters" in one] == []


def test_a_new_limit_reads_what_can_count_and_no_answer(book: Book) -> None:
    """Of a limit for a day, nothing that was done before it, which could not even be read, and no column that holds an event."""
    for _ in range(2):
        used(book, NOW - 3 * DAY)
    used(book, NOW)
    book.admit(now=NOW)
    with book.engine.begin() as db:
        db.execute(update(REQUESTS).where(REQUESTS.c.done_at < NOW - DAY).values(asking=b"unreadable"))
    with statements(book.engine) as said:
        book.put(Limit("/acme", "usd", "day", 1_000))
    assert book.counts() == {("/acme", "usd per day"): (100, 100)}
    read = [one.split(" FROM ")[0] for one in said if " FROM requests" in one or " FROM attempts" in one]
    assert read
    assert [one for one in read if "requests.answer" in one or "plan" in one or "usage" in one] == []


def test_a_change_for_one_tenant_reads_no_request_of_another(book: Book) -> None:
    """Neither a new limit nor a time zone, also where the limit whose windows it moves is for every tenant."""
    used(book, NOW)
    book.put(Limit("/*", "usd", "day", 1_000))
    with book.engine.begin() as db:
        db.execute(update(REQUESTS).values(asking=b"unreadable"))
    book.put(Limit("/globex", "usd", "month", 1_000), zones=[("globex", "Europe/Berlin")])
    book.put(zones=[("globex", "Asia/Kathmandu")])
    assert book.counts() == {("/acme", "usd per day"): (100, 0)}


def test_a_key_that_is_issued_with_a_limit_reads_no_request(book: Book) -> None:
    """Nobody has asked with it before, so there is nothing to count, and its limit begins with the first request."""
    with statements(book.engine) as said, book.engine.begin() as db:
        new = NewKey("acme", nano_usd_per_day=150)
        key, _ = issue(db, EncryptionKeys((LocalKey("one", bytes(32)),)), new, Change("ana", NOW))
    assert [one for one in said if "requests" in one or "attempts" in one or "counters" in one] == []
    asking = Asking(path_of("acme", None, None, key.key_id), None, ("openai/gpt-5",), Amounts(100, 10))
    entries = [ledger.Admission(str(uuid.uuid4()), bytes(32), "acme", 100, None, NOW, b"", asking) for _ in range(2)]
    with book.engine.begin() as db:
        assert [one.kind for one in ledger.admit(db, entries)] == ["new", "refused"]


def test_an_open_request_is_counted_in_the_window_of_its_admission(book: Book) -> None:
    """A limit set today holds a further call of yesterday's request against yesterday, with all that was used then."""
    yesterday, _ = book.admit(100, now=NOW - DAY)
    used(book, NOW - DAY - HOUR, 70)
    book.start(yesterday, NOW - DAY)
    book.end(yesterday, 1, 90, answer=None)
    book.put(Limit("/acme", "usd", "day", 250))
    assert isinstance(book.start(yesterday), OverLimit)
    book.put(Limit("/acme", "usd", "day", 260))
    assert isinstance(book.start(yesterday), Begin)
    assert book.admit(260)[1].kind == "new"


@pytest.mark.parametrize(
    ("limit", "before", "after"),
    [
        (Limit("/acme/user:ana", "usd", "month", 10_000), 900, 1_000),
        (Limit("/acme", "usd", "month", 10_000), 900, 1_000),
        (Limit("/*/user:*", "requests", "month", 10_000), 9, 10),
        (Limit("/acme", "tokens", "month", 10_000), 63, 70),
    ],
    ids=str,
)
def test_a_month_that_the_ledger_has_forgotten_survives_a_time_zone(
    book: Book, limit: Limit, before: int, after: int
) -> None:  # fmt: skip
    """What requests used that are forgotten goes on counting after the tenant's zone has moved, with what is remembered, once."""
    book.put(limit)
    begins = time_of("2026-11-02T12:00:00")
    for place in range(6):
        used(book, begins + place * HOUR)
    for place in range(3):
        used(book, NOW - place * DAY)
    purge(book, NOW)
    with book.engine.connect() as db:
        assert len(db.execute(select(REQUESTS.c.request_id)).all()) == 3
    [(key, _)] = book.counts().items()
    assert book.counts() == {key: (before, 0)}
    book.put(zones=[("acme", "Europe/Berlin")])
    assert book.counts() == {key: (before, 0)}
    used(book, NOW)
    assert book.counts() == {key: (after, 0)}
    book.put(zones=[("acme", "America/New_York")])
    book.put(zones=[("acme", None)])
    assert book.counts() == {key: (after, 0)}
    with reading(book.engine) as db:
        [audited] = [one for one in counted(db, NOW, 8) if one.used]
        assert audited.used_by_calls == after * 4 // 10


def test_a_month_that_is_not_over_in_the_new_zone_has_what_the_old_one_had(book: Book) -> None:
    """In the first hours of a month in UTC, a tenant that moves to New York is in the last ones of the month before again."""
    book.put(WHO)
    for place in range(9):
        used(book, time_of("2026-11-02T12:00:00") + place)
    at = time_of("2026-12-01T02:00:00")
    used(book, at - HOUR)
    purge(book, at)
    assert book.counts() == {("/acme/user:ana", WHO.subject): (100, 0)}
    book.put(zones=[("acme", "America/New_York")], now=at)
    assert book.counts() == {("/acme/user:ana", WHO.subject): (1_000, 0)}
    assert book.admit(1, now=at)[1].kind == "refused"


def test_a_month_that_is_over_in_both_zones_counts_no_more(book: Book) -> None:
    """What was used in October and is forgotten is not held against the November of Berlin, which began an hour before that of UTC:
    of that hour the ledger remembers all."""
    book.put(WHO)
    for place in range(9):
        used(book, time_of("2026-10-02T12:00:00") + place)
    used(book, time_of("2026-10-31T23:30:00"), 7)
    at = time_of("2026-11-05T12:00:00")
    used(book, time_of("2026-10-29T12:00:00"), 90)
    purge(book, at)
    book.put(zones=[("acme", "Europe/Berlin")], now=at)
    assert book.counts()["/acme/user:ana", WHO.subject] == (7, 0)


def test_an_old_request_that_is_not_settled_hides_nothing_that_is_forgotten(book: Book) -> None:
    """The ledger keeps it, and has forgotten what was done after it all the same."""
    book.put(WHO)
    october = NOW - 40 * DAY
    stuck, _ = book.admit(now=october)
    book.start(stuck, october)
    book.end(stuck, 1, 100)
    with book.engine.begin() as db:
        db.execute(update(REQUESTS).values(done_at=october))
    used(book, NOW - 9 * DAY, 900)
    purge(book, NOW)
    book.put(zones=[("acme", "Europe/Berlin")])
    assert book.counts() == {("/acme/user:ana", WHO.subject): (900, 0)}


def test_a_limit_that_was_removed_keeps_what_it_had_counted(book: Book) -> None:
    """Set again within its window, it does not begin with what the ledger remembers alone."""
    book.put(WHO)
    used(book, NOW - 9 * DAY, 600)
    used(book, NOW - DAY, 300)
    purge(book, NOW)
    book.put(remove=[WHO])
    book.put(zones=[("acme", "Asia/Kathmandu")])
    book.put(WHO)
    assert book.counts() == {("/acme/user:ana", WHO.subject): (900, 0)}


ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Pacific/Kiritimati", "Pacific/Pago_Pago", "Asia/Kathmandu")
NOVEMBER = time_of("2026-11-01T00:00:00")


def test_no_time_zone_makes_a_month_look_emptier_than_it_is(tmp_path: Path) -> None:
    """Whenever requests came, whatever the ledger has forgotten of them, and however often the zone of their tenant moves: what counts
    is at least what was used in the month of the zone, and no more than was used at all; of what is remembered, exactly it."""
    engine = open_database(f"sqlite:///{tmp_path}/ledger.db")
    create_tables(engine)
    tenants = (f"t{number}" for number in count())

    @settings(max_examples=30, deadline=None, database=None)
    @given(
        times=st.lists(st.integers(-3 * 24, 27 * 24), min_size=1, max_size=8),
        day=st.integers(10, 27),
        zones=st.lists(st.sampled_from(ZONES), min_size=2, max_size=4),
        purged=st.booleans(),
    )
    def holds(times: list[int], day: int, zones: list[str], purged: bool) -> None:
        tenant, now = next(tenants), NOVEMBER + day * DAY
        mine, months = (
            Limit(f"/{tenant}/user:ana", "usd", "month", 10**9),
            [calendar("month", zone, now) for zone in zones],
        )
        asked = [(NOVEMBER + hours * HOUR, 10**place) for place, hours in enumerate(times) if hours < day * 24]
        with engine.begin() as db:
            limits.change(db, limits.Edit([mine], zones=[(tenant, zones[0])]), "ana", NOVEMBER - 9 * DAY)
        for at, nano in asked:
            one = str(uuid.uuid4())
            asking = Asking(path_of(tenant, None, "ana", None), None, ("openai/gpt-5",), Amounts(nano, 1))
            ended = ledger.EndedAttempt(1, b"usage", nano, "priced")
            with engine.begin() as db:
                ledger.admit(db, [ledger.Admission(one, bytes(32), tenant, nano, None, at, b"", asking)])
                ledger.start(db, [ledger.Start(one, "w", at, None, 1, True)])
                ledger.end(db, [ledger.End(one, "w", at, ended, b"answer")])
                settling.settle(db, [settling.Settlement(one, 1, nano, nano, 1, "openai/gpt-5", at)])
        if purged:
            with engine.begin() as db:
                upkeep.purge(db, now, 8)
        for zone, month in zip(zones[1:], months[1:], strict=True):
            with engine.begin() as db:
                limits.change(db, limits.Edit(zones=[(tenant, zone)]), "ana", now)
                cells = db.execute(select(COUNTERS).where(COUNTERS.c.account == mine.account)).all()
            found = sum(row.used for row in cells if row.begins == month.begins)
            # The first counter knows its own month; of the hours before that, the ledger only knows what it remembers.
            known = [(at, nano) for at, nano in asked if not purged or at >= min(months[0].begins, now - 8 * DAY)]
            least = sum(nano for at, nano in known if at >= month.begins)
            most = sum(nano for at, nano in known if at >= min(one.begins for one in months))
            assert least <= found <= most if purged else found == least

    holds()
    engine.dispose()


def test_changes_and_work_on_requests_never_wait_for_each_other_in_a_circle(book: Book) -> None:
    """Workers begin, end and settle calls, in one transaction of one request after another, while limits and time zones change:
    the database has to stop nobody, and nothing is counted twice, lost or left held."""
    budget, places = Limit("/acme", "usd", "day", 10**9), Limit("/acme", "concurrent", None, 10**6)
    book.put(budget)
    stop, failed, through = threading.Event(), list[BaseException](), list[int]()

    def work(turn: int) -> None:
        asking = Asking(path_of("acme", None, f"u{turn}", None), None, ("openai/gpt-5",), Amounts(100, 10))
        try:
            while not stop.is_set():
                ids = [str(uuid.uuid4()) for _ in range(6)]
                with book.engine.begin() as db:
                    entries = [ledger.Admission(one, bytes(32), "acme", 100, None, NOW, b"", asking) for one in ids]
                    assert {each.kind for each in ledger.admit(db, entries)} == {"new"}
                first, second = ids[:3], ids[3:]
                call(first)
                with book.engine.begin() as db:
                    begin(db, second)
                    end(db, first, 1, None)
                with book.engine.begin() as db:
                    end(db, second, 1, b"answer")
                    settle(db, first, 1)
                    begin(db, first)
                with book.engine.begin() as db:
                    end(db, first, 2, b"answer")
                    settle(db, second, 1)
                    settle(db, first, 2)
                through.append(len(ids))
        except BaseException as error:
            failed.append(error)

    def call(ids: list[str]) -> None:
        with book.engine.begin() as db:
            begin(db, ids)

    def begin(db: Any, ids: list[str]) -> None:
        found = ledger.start(db, [ledger.Start(one, "w", NOW, None, 5, True) for one in ids])
        assert all(isinstance(each.step, Begin) for each in found)

    def end(db: Any, ids: list[str], number: int, answer: bytes | None) -> None:
        ended = ledger.EndedAttempt(number, b"usage", 40, "priced")
        assert set(ledger.end(db, [ledger.End(one, "w", NOW, ended, answer) for one in ids])) == {"recorded"}

    def settle(db: Any, ids: list[str], number: int) -> None:
        entries = [settling.Settlement(one, number, 40, 100, 7, "openai/gpt-5", NOW) for one in ids]
        assert all(settling.settle(db, entries))

    threads = [threading.Thread(target=work, args=(turn,)) for turn in range(3)]
    for thread in threads:
        thread.start()
    rounds = 0
    while not failed and (rounds < 15 or sum(through) < 60):
        book.put(places)
        book.put(zones=[("acme", "Europe/Berlin" if rounds % 2 else "Asia/Kathmandu")])
        book.put(remove=[places])
        rounds += 1
    stop.set()
    for thread in threads:
        thread.join()
    assert failed == []
    with book.engine.connect() as db:
        calls = len(db.execute(select(ATTEMPTS.c.number)).all())
    assert book.counts()["/acme", "usd per day"] == (40 * calls, 0)
    book.put(places)
    assert book.counts().get(("/acme", "concurrent"), (0, 0)) == (0, 0)
    with reading(book.engine) as db:
        found = counted(db, NOW, 8)
    assert [(one.used, one.reserved) for one in found] == [(one.used_by_calls, one.held_by_requests) for one in found]


@pytest.mark.parametrize("empty", ["postgres"], indirect=True)
def test_an_operator_whom_others_are_in_the_way_of_is_told_to_try_again(engine: Engine) -> None:
    """A command that the database stops, as two transactions wait for each other or one is busy for too long, says so: the
    database is there and has not to be started."""
    book, stored = Book(engine), Settings(database_url=engine.url.render_as_string(hide_password=False))
    book.put(Limit("/acme", "usd", "day", 1_000), Limit("/globex", "usd", "day", 1_000))
    mine, theirs = (select(LIMITS).where(LIMITS.c.account == path).with_for_update() for path in ("/acme", "/globex"))
    with engine.connect() as other, ThreadPoolExecutor(1) as thread:
        other.execute(theirs)

        def change() -> None:
            with database(stored) as own, own.begin() as db:
                db.execute(text("SET LOCAL deadlock_timeout = '100ms'"))
                db.execute(mine)
                waiting = thread.submit(other.execute, mine)
                while not db.execute(text("SELECT count(*) FROM pg_locks WHERE NOT granted")).scalar():
                    assert not waiting.done()
                db.execute(theirs)

        with pytest.raises(
            CommandError, match=r"in the way \(DeadlockDetected\); nothing was changed, run the command again"
        ):
            change()
