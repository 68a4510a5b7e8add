"""Limits in the ledger, the same on SQLite and on PostgreSQL: what is held, used and given back, and counted from the start."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import Engine, event, select

from config import counting, ledger, limits, settling, upkeep
from config.audit import balances
from config.database import reading
from config.limit_audit import counted
from config.limit_models import COUNTERS, LIMIT_ALERTS
from config.models import ACCOUNTS, ATTEMPTS, REQUESTS
from core.accounts import path_of
from core.attempts import Begin, OverLimit
from core.limits import SOON_MS, Amounts, Asking, Limit

NOW = 1_795_258_680_000_000
SECOND, DAY = 1_000_000, 86_400_000_000


class Book:
    """The ledger, one transaction an operation."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def put(
        self, *wanted: Limit, remove: Sequence[Limit] = (), zones: Sequence[tuple[str, str | None]] = (), now: int = NOW
    ) -> int:
        with self.engine.begin() as db:
            return limits.change(db, limits.Edit(wanted, remove, zones), "ana", now).version

    def admit(
        self, nano: int | None = 100, tokens: int = 10, user: str = "ana", now: int = NOW, expires_at: int | None = None
    ) -> tuple[str, ledger.Admitted]:
        one = str(uuid.uuid4())
        asking = Asking(
            path_of("acme", None, user, None), None, ("openai/gpt-5", "google/gemini"), Amounts(nano, tokens)
        )
        entry = ledger.Admission(one, bytes(32), "acme", nano or 0, None, now, b"", asking, expires_at)
        with self.engine.begin() as db:
            return one, ledger.admit(db, [entry])[0]

    def start(self, one: str, now: int = NOW, candidate: int = 0) -> Any:
        """The next step of a call by a candidate, to which the request has moved."""
        with self.engine.begin() as db:
            db.execute(REQUESTS.update().where(REQUESTS.c.request_id == one).values(candidate=candidate))
            return ledger.start(db, [ledger.Start(one, "w", now, None, 5, True, candidate)])[0].step

    def end(self, one: str, number: int | None, cost: int | None, answer: bytes | None = b"answer") -> None:
        status = "unknown" if cost is None else "priced"
        attempt = None if number is None else ledger.EndedAttempt(number, b"usage", cost, status)  # type: ignore[arg-type]
        with self.engine.begin() as db:
            assert ledger.end(db, [ledger.End(one, "w", NOW, attempt, answer)]) == ["recorded"]

    def settle(self, one: str, number: int, cost: int | None, tokens: int | None = 7, bound: int = 100) -> bool | None:
        with self.engine.begin() as db:
            return settling.settle(db, [settling.Settlement(one, number, cost, bound, tokens, "openai/gpt-5", NOW)])[0]

    def counts(self) -> dict[tuple[str, str], tuple[int, int]]:
        """Used and reserved by account and subject, of the latest window."""
        with self.engine.connect() as db:
            rows = db.execute(select(COUNTERS).order_by(COUNTERS.c.begins))
            return {(row.account, row.subject): (row.used, row.reserved) for row in rows}

    def alerts(self) -> list[tuple[str, int]]:
        with self.engine.connect() as db:
            return [(row.account, row.share) for row in db.execute(select(LIMIT_ALERTS).order_by(LIMIT_ALERTS.c.share))]


@pytest.fixture
def book(engine: Engine) -> Book:
    return Book(engine)


def test_what_a_call_used_takes_the_place_of_its_bound(book: Book) -> None:
    """Each meter holds the bound from admission on, then what was used; a place among concurrent requests is free with the answer."""
    book.put(
        Limit("/acme", "usd", "day", 1_000),
        Limit("/", "tokens", "minute", 50),
        Limit("/acme/user:*", "concurrent", None, 2),
        Limit("/", "requests", "hour", 9),
    )
    one, _ = book.admit()
    held = {
        ("/acme", "usd per day"): (0, 100),
        ("/", "tokens per minute"): (0, 10),
        ("/acme/user:ana", "concurrent"): (0, 1),
        ("/", "requests per hour"): (1, 0),
    }
    assert book.counts() == held
    assert isinstance(book.start(one), Begin)
    book.end(one, 1, 60)
    assert book.counts() == held | {("/acme/user:ana", "concurrent"): (0, 0)}
    assert book.settle(one, 1, 60) is True
    through = {
        ("/acme", "usd per day"): (60, 0),
        ("/", "tokens per minute"): (7, 0),
        ("/acme/user:ana", "concurrent"): (0, 0),
        ("/", "requests per hour"): (1, 0),
    }
    assert book.counts() == through
    assert book.settle(one, 1, 60) is False
    assert book.counts() == through


def test_a_refused_request_takes_nothing_of_any_limit(book: Book) -> None:
    """One limit without room leaves the others as they were, and the ledger without the request."""
    book.put(
        Limit("/", "requests", "day", 10),
        Limit("/acme", "usd", "day", 150),
        Limit("/acme/user:*", "tokens", "day", 100),
    )
    book.admit()
    before = book.counts()
    one, refused = book.admit()
    assert refused.kind == "refused"
    assert refused.refusal is not None
    assert refused.refusal.count.account == "/acme"
    assert book.counts() == before
    assert book.start(one) is None


def test_a_batch_over_the_end_of_a_window_counts_in_both(book: Book) -> None:
    """Requests just before and just after midnight, in one transaction: the new window's first one forgets nothing of the old."""
    book.put(Limit("/acme", "requests", "day", 2))
    midnight = (NOW // DAY + 1) * DAY
    for _ in range(2):
        assert book.admit(now=midnight - 2)[1].kind == "new"
    asking = Asking(path_of("acme", None, None, None), None, ("openai/gpt-5",), Amounts(1, 1))
    times = (midnight - 1, midnight, midnight - 1, midnight, midnight)
    entries = [ledger.Admission(str(uuid.uuid4()), bytes(32), "acme", 1, None, at, b"", asking) for at in times]
    with book.engine.begin() as db:
        kinds = [admitted.kind for admitted in ledger.admit(db, entries)]
    assert kinds == ["refused", "new", "refused", "new", "refused"]


def test_who_asks_a_little_earlier_and_comes_second_finds_no_room(book: Book) -> None:
    """A sliding window that ends after a request has it in it too: across the border of a cell, whatever comes first."""
    book.put(Limit("/acme", "requests", "minute", 1, sliding=True))
    second = NOW // SECOND * SECOND + SECOND
    assert book.admit(now=second)[1].kind == "new"
    assert [book.admit(now=second - ago)[1].kind for ago in (1, 30 * SECOND, 60 * SECOND)] == ["refused"] * 3
    assert book.admit(now=second - 61 * SECOND)[1].kind == "new"


@pytest.mark.parametrize("earlier", [(), (-1,), (0,)], ids=["none before", "one before", "one in its second"])
def test_whoever_waits_for_another_sees_what_that_one_took(book: Book, earlier: tuple[int, ...]) -> None:
    """Two transactions at once in two seconds of a sliding minute: the one that has to wait knows the second that it did not find."""
    book.put(Limit("/acme", "requests", "minute", 1 + len(earlier), sliding=True))
    second = NOW // SECOND * SECOND
    for ago in earlier:
        assert book.admit(now=second + ago * SECOND)[1].kind == "new"
    kinds: list[str] = []
    other = threading.Thread(target=lambda: kinds.append(book.admit(now=second)[1].kind))
    with book.engine.begin() as db:
        asking = Asking(path_of("acme", None, None, None), None, ("openai/gpt-5",), Amounts(1, 1))
        entry = ledger.Admission(str(uuid.uuid4()), bytes(32), "acme", 1, None, second + SECOND, b"", asking)
        assert ledger.admit(db, [entry])[0].kind == "new"
        other.start()
        # Long enough for it to ask and to wait; one that asks later finds everything.
        other.join(0.5)
    other.join()
    assert kinds == ["refused"]


def test_a_later_call_of_a_request_finds_no_room_in_a_sliding_window_that_others_filled(book: Book) -> None:
    """It counts where the request was admitted, in every window that has that in it, also those that ended since."""
    book.put(Limit("/acme", "tokens", "minute", 20, sliding=True))
    one, _ = book.admit()
    book.start(one)
    book.end(one, 1, 90, answer=None)
    book.settle(one, 1, 90, tokens=10)
    assert book.admit(now=NOW + 30 * SECOND)[1].kind == "new"
    assert isinstance(book.start(one, now=NOW + 31 * SECOND), OverLimit)


def test_a_limit_without_a_price_to_hold_lets_nothing_through(book: Book) -> None:
    """A model without a price is not admitted where money is limited, and is where it is not."""
    book.put(Limit("/acme", "usd", "day", 150))
    refused = book.admit(nano=None)[1].refusal
    assert refused is not None
    assert refused.error["code"] == "policy_unpriced_model"
    book.put(remove=[Limit("/acme", "usd", "day", 150)])
    assert book.admit(nano=None)[1].kind == "new"


def test_a_call_whose_cost_is_not_known_stays_counted_with_its_bound(book: Book) -> None:
    """Money and tokens that may have been used are not given to others."""
    book.put(Limit("/acme", "usd", "day", 150), Limit("/acme", "tokens", "day", 100))
    one, _ = book.admit()
    book.start(one)
    book.end(one, 1, None)
    book.settle(one, 1, None, tokens=None)
    assert book.counts() == {("/acme", "usd per day"): (100, 0), ("/acme", "tokens per day"): (10, 0)}


def test_a_further_call_is_held_for_beside_the_one_that_charged(book: Book) -> None:
    """A second call that would exceed the limit is not made, however the first one's cost is known; what it used stays counted."""
    book.put(Limit("/acme", "usd", "day", 250))
    one, _ = book.admit()
    book.start(one)
    book.end(one, 1, 90, answer=None)
    assert isinstance(book.start(one), Begin)
    assert book.counts() == {("/acme", "usd per day"): (0, 190)}
    book.end(one, 2, 90, answer=None)
    step = book.start(one)
    assert isinstance(step, OverLimit)
    assert step.error["code"] == "policy_budget_exceeded"
    book.end(one, None, None)
    assert (book.settle(one, 1, 90), book.settle(one, 2, 90)) == (True, True)
    assert book.counts() == {("/acme", "usd per day"): (180, 0)}


def test_a_further_call_finds_room_for_what_the_settled_one_used(book: Book) -> None:
    """What a call used takes the place of as much that its request holds: no more is taken than was found free, and a further call
    is held for anew, or not made."""
    book.put(Limit("/acme", "usd", "day", 189), Limit("/acme", "tokens", "day", 17))
    one, _ = book.admit()
    book.start(one)
    book.end(one, 1, 90, answer=None)
    book.settle(one, 1, 90)
    assert book.counts() == {("/acme", "usd per day"): (90, 10), ("/acme", "tokens per day"): (7, 3)}
    assert isinstance(book.start(one), OverLimit)
    book.put(Limit("/acme", "usd", "day", 190))
    assert isinstance(book.start(one), Begin)
    assert book.counts() == {("/acme", "usd per day"): (90, 100), ("/acme", "tokens per day"): (7, 10)}
    with reading(book.engine) as db:
        [found] = balances(db)
        assert (found.reserved_nano, found.held_nano) == (100, 100)
    assert book.admit(1, tokens=0)[1].kind == "refused"
    book.end(one, 2, 95)
    book.settle(one, 2, 95)
    assert book.counts() == {("/acme", "usd per day"): (185, 0), ("/acme", "tokens per day"): (14, 0)}
    with reading(book.engine) as db:
        [found] = balances(db)
        assert (found.reserved_nano, found.held_nano, found.spent_nano) == (0, 0, 185)


def test_a_limit_set_between_two_calls_lets_no_other_be_exceeded(book: Book) -> None:
    """A further call needs of each limit what it does not hold there, whatever it holds of another."""
    book.put(Limit("/acme", "tokens", "day", 15))
    one, _ = book.admit()
    book.start(one)
    book.end(one, 1, 90, answer=None)
    book.settle(one, 1, 90)
    book.put(Limit("/", "tokens", "day", 1_000))
    assert isinstance(book.start(one), OverLimit)
    assert book.counts() == {("/acme", "tokens per day"): (7, 3), ("/", "tokens per day"): (7, 0)}
    book.put(Limit("/acme", "tokens", "day", 17))
    assert isinstance(book.start(one), Begin)
    assert book.counts() == {("/acme", "tokens per day"): (7, 10), ("/", "tokens per day"): (7, 10)}


def test_a_further_call_needs_no_room_for_other_models(book: Book) -> None:
    """A full limit of the first candidate's model lets the second one be called, and does not let the first one be called again."""
    book.put(Limit("/acme", "tokens", "day", 15, model="openai/*"))
    one, _ = book.admit()
    book.start(one)
    book.end(one, 1, 90, answer=None)
    book.settle(one, 1, 90)
    assert isinstance(book.start(one), OverLimit)
    assert isinstance(book.start(one, candidate=1), Begin)
    assert book.counts() == {("/acme", "tokens per day model openai/*"): (7, 3)}


def test_a_new_limit_knows_every_call_that_is_not_settled(book: Book) -> None:
    """Two calls may use their bound each, and what they may use is held of a limit that is set meanwhile."""
    one, _ = book.admit()
    book.start(one)
    book.end(one, 1, None, answer=None)
    book.put(Limit("/", "tokens", "day", 1_000))
    book.start(one)
    book.put(Limit("/acme", "tokens", "day", 1_000))
    held = (0, 20)
    assert book.counts() == {("/acme", "tokens per day"): held, ("/", "tokens per day"): held}


def test_a_settled_call_beside_an_open_one_gives_back_what_it_held(book: Book) -> None:
    """Never more is used and held than was found free, whichever of two calls is settled first."""
    book.put(Limit("/acme", "usd", "day", 200))
    one, _ = book.admit()
    book.start(one)
    book.end(one, 1, None, answer=None)
    book.start(one)
    assert book.counts() == {("/acme", "usd per day"): (0, 200)}
    book.settle(one, 1, None)
    assert book.counts() == {("/acme", "usd per day"): (100, 100)}
    book.end(one, 2, 30)
    book.settle(one, 2, 30)
    assert book.counts() == {("/acme", "usd per day"): (130, 0)}


def test_what_is_held_for_an_abandoned_request_expires(book: Book) -> None:
    """It is given back once and noted; a request that goes on after all has to find room again."""
    book.put(Limit("/acme", "usd", "day", 150), Limit("/acme", "concurrent", None, 5))
    one, _ = book.admit(expires_at=NOW + 1)
    with book.engine.begin() as db:
        assert upkeep.expire(db, NOW) == 0
        assert upkeep.expire(db, NOW + 1) == 1
        assert upkeep.expire(db, NOW + 1) == 0
        row = db.execute(select(REQUESTS)).one()
        assert (row.expired_at, row.reserved_nano) == (NOW + 1, 0)
        assert db.execute(select(ACCOUNTS.c.reserved_nano)).scalar() == 0
    assert book.counts() == {("/acme", "usd per day"): (0, 0), ("/acme", "concurrent"): (0, 0)}
    two, _ = book.admit()
    assert isinstance(book.start(one), OverLimit)
    book.start(two)
    book.end(two, 1, 10)
    book.settle(two, 1, 10)
    assert isinstance(book.start(one), Begin)
    assert book.counts() == {("/acme", "usd per day"): (10, 100), ("/acme", "concurrent"): (0, 1)}
    with book.engine.begin() as db:
        assert upkeep.expire(db, NOW + DAY) == 0


def test_what_is_held_again_after_it_expired_expires_again(book: Book) -> None:
    """A request that went on and was left alone once more has its time once more, its open call is found, and nothing is left of it."""
    book.put(Limit("/acme", "concurrent", None, 1))
    one, _ = book.admit(expires_at=NOW + SECOND)
    with book.engine.begin() as db:
        assert upkeep.expire(db, NOW + SECOND) == 1
    assert isinstance(book.start(one, now=NOW + DAY), Begin)
    assert book.admit(now=NOW + DAY)[1].kind == "refused"
    with book.engine.begin() as db:
        assert upkeep.abandoned(db, NOW + DAY) == []
        [found] = upkeep.abandoned(db, NOW + DAY + SECOND)
    assert (found.request_id, found.number, found.usage) == (one, 1, None)
    book.end(one, 1, 0, answer=None)
    book.settle(one, 1, 0)
    with book.engine.begin() as db:
        assert upkeep.expire(db, NOW + DAY + SECOND) == 1
    assert book.counts() == {("/acme", "concurrent"): (0, 0)}


def test_a_request_that_comes_twice_at_once_is_judged_each_time(book: Book) -> None:
    """In one transaction: where the first has no room and the second asks for less, and where one id is used by two tenants."""
    book.put(Limit("/acme", "usd", "day", 50))

    def entry(one: str, tenant: str, nano: int) -> ledger.Admission:
        asking = Asking(path_of(tenant, None, None, None), None, ("openai/gpt-5",), Amounts(nano, 1))
        return ledger.Admission(one, bytes(32), tenant, nano, None, NOW, b"", asking)

    dear, theirs = str(uuid.uuid4()), str(uuid.uuid4())
    entries = [entry(dear, "acme", 60), entry(dear, "acme", 40), entry(theirs, "acme", 60), entry(theirs, "globex", 60)]
    with book.engine.begin() as db:
        found = ledger.admit(db, entries)
    assert [admitted.kind for admitted in found] == ["refused", "new", "refused", "new"]
    assert book.counts() == {("/acme", "usd per day"): (0, 40)}


def test_a_further_call_is_told_when_there_is_room_from_its_own_time_on(book: Book) -> None:
    """It counts in the window of its request's admission, and is told how long that still is, or to ask again soon where it is over."""
    book.put(Limit("/acme", "tokens", "hour", 15))
    hour = NOW // (3_600 * SECOND) * 3_600 * SECOND
    one, _ = book.admit(now=hour)
    book.start(one, now=hour)
    book.end(one, 1, 90, answer=None)
    book.settle(one, 1, 90, tokens=10)
    for minutes, waits in ((50, 600_000), (120, SOON_MS)):
        step = book.start(one, now=hour + minutes * 60 * SECOND)
        assert isinstance(step, OverLimit)
        assert step.error["retry_after_ms"] == waits


def test_what_a_limit_counted_that_is_there_no_more_is_locked_in_its_turn(book: Book) -> None:
    """A settlement reads and locks all cells that it changes before it changes the first."""
    book.put(Limit("/", "usd", "day", 500), Limit("/acme", "usd", "day", 500))
    one, _ = book.admit()
    book.start(one)
    book.end(one, 1, 60)
    book.put(remove=[Limit("/", "usd", "day", 500)])
    asked: list[tuple[str, Any]] = []
    event.listen(book.engine, "before_cursor_execute", lambda *about: asked.append((about[2], about[3])))
    book.settle(one, 1, 60)
    locked = next(str(values) for text, values in asked if text.startswith("SELECT counters"))
    assert "'/'" in locked and "'/acme'" in locked
    assert book.counts() == {("/acme", "usd per day"): (60, 0), ("/", "usd per day"): (60, 0)}


def test_a_sliding_counts_last_cell_stays_its_last_one(book: Book) -> None:
    """What was admitted unchecked is counted later, in an older cell: whoever waits still learns of the newest."""
    book.put(Limit("/acme", "requests", "minute", 5, sliding=True))
    heads = select(COUNTERS.c.used).where(COUNTERS.c.subject.startswith("last of"))
    book.admit(now=NOW)
    with book.engine.connect() as db:
        last = db.execute(heads).scalar_one()
    asking = Asking(path_of("acme", None, None, None), None, ("openai/gpt-5",), Amounts(1, 1))
    with book.engine.begin() as db:
        counting.unheld(db, limits.current(db), [(asking, NOW - 600 * SECOND, 1)])
        assert db.execute(heads).scalar_one() == last


def test_a_new_limit_counts_what_the_ledger_knows_of_its_window(book: Book) -> None:
    """Set in the middle of a day it knows what was used and what is held, and what is held then is freed in it too."""
    through, _ = book.admit()
    book.start(through)
    book.end(through, 1, 60)
    book.settle(through, 1, 60)
    yesterday, _ = book.admit(now=NOW - DAY)
    book.admit()
    book.put(
        Limit("/*", "usd", "day", 300),
        Limit("/*/user:*", "concurrent", None, 3),
        Limit("/", "requests", "day", 9),
        Limit("/acme", "tokens", "day", 999),
    )
    assert book.counts() == {
        ("/acme", "usd per day"): (60, 100), ("/acme/user:ana", "concurrent"): (0, 2), ("/", "requests per day"): (2, 0),
        ("/acme", "tokens per day"): (7, 10),
    }  # fmt: skip
    book.start(yesterday)
    book.end(yesterday, 1, 50)
    book.settle(yesterday, 1, 50)
    assert book.counts()["/acme", "usd per day"] == (60, 100)
    assert book.counts()["/acme/user:ana", "concurrent"] == (0, 1)
    assert book.admit(141)[1].kind == "refused"
    assert book.admit(140)[1].kind == "new"


def test_a_new_limit_counts_the_call_of_a_request_that_holds_nothing(book: Book) -> None:
    """What a call used that costs more than its bound of nothing counts, also where the limit was set after its admission."""
    one, _ = book.admit(0, tokens=0)
    book.put(Limit("/acme", "usd", "day", 300), Limit("/acme", "tokens", "day", 300))
    book.start(one)
    book.end(one, 1, 60)
    book.settle(one, 1, 60)
    assert book.counts() == {("/acme", "usd per day"): (60, 0), ("/acme", "tokens per day"): (7, 0)}


def test_a_monthly_budget_knows_the_month_that_the_ledger_has_forgotten(book: Book) -> None:
    """A tenant's and the platform's money of a calendar month comes from their accounts, not from requests that may be gone."""
    one, _ = book.admit()
    book.start(one)
    book.end(one, 1, 60)
    book.settle(one, 1, 60)
    with book.engine.begin() as db:
        db.execute(ATTEMPTS.delete())
        db.execute(REQUESTS.delete())
    book.put(Limit("/acme", "usd", "month", 100), Limit("/", "usd", "month", 100))
    assert book.counts() == {("/acme", "usd per month"): (60, 0), ("/", "usd per month"): (60, 0)}


def test_a_changed_amount_keeps_the_count_and_acts_at_once(book: Book) -> None:
    """Lowered below what is used nothing fits any more, raised again it does; every change is audited."""
    versions = [book.put(Limit("/acme", "usd", "day", 300))]
    book.admit()
    versions.append(book.put(Limit("/acme", "usd", "day", 50)))
    assert book.counts() == {("/acme", "usd per day"): (0, 100)}
    assert book.admit(1)[1].kind == "refused"
    versions.append(book.put(Limit("/acme", "usd", "day", 200)))
    assert book.admit(100)[1].kind == "new"
    assert versions == [1, 2, 3]
    assert book.put(Limit("/acme", "usd", "day", 200)) == 3


def test_a_day_begins_at_midnight_of_the_tenant(book: Book) -> None:
    """Its time zone moves the window, with what was used in it; a name that is no zone is refused."""
    midnight_utc = NOW // DAY * DAY
    book.put(Limit("/acme", "usd", "day", 1_000), now=midnight_utc)
    book.admit(now=midnight_utc - 3_600_000_000)
    book.admit(now=midnight_utc)
    assert book.counts()["/acme", "usd per day"] == (0, 100)
    book.put(zones=[("acme", "Europe/Berlin")], now=midnight_utc)
    assert book.counts()["/acme", "usd per day"] == (0, 200)
    with pytest.raises(ValueError, match="'Berlin' is no time zone"):
        book.put(zones=[("acme", "Berlin")])


def test_a_share_is_told_once_a_window(book: Book) -> None:
    """80, 90 and 100 % of what is used are noted once each, and again in the next window."""
    book.put(Limit("/acme", "usd", "day", 1_000))
    for _ in range(12):
        one, admitted = book.admit()
        if admitted.kind == "new":
            book.start(one)
            book.end(one, 1, 85)
            book.settle(one, 1, 85)
    assert book.alerts() == [("/acme", 80), ("/acme", 90), ("/acme", 100)]
    for _ in range(10):
        one, _ = book.admit(now=NOW + DAY)
        book.start(one)
        book.end(one, 1, 85)
        book.settle(one, 1, 85)
    assert book.alerts() == [("/acme", 80), ("/acme", 80), ("/acme", 90), ("/acme", 100)]


def through(book: Book, nano: int, bound: int = 100, now: int = NOW) -> str:
    """A request that was answered and settled for so much; or why it was not admitted."""
    one, admitted = book.admit(bound, now=now)
    if admitted.kind == "new":
        book.start(one)
        book.end(one, 1, nano)
        book.settle(one, 1, nano)
    return admitted.kind


def test_a_refusal_is_told_as_the_end_of_a_limit_and_hides_no_true_share(book: Book) -> None:
    """It tells 100 % alone, once; 80 and 90 are told when they are used, 100 not again; a request larger than the limit tells nothing."""
    book.put(Limit("/acme", "usd", "day", 1_000))
    assert through(book, 1, bound=1_001) == "refused"
    assert book.alerts() == []
    for _ in range(4):
        through(book, 100)
    assert [through(book, 1, bound=601) for _ in range(2)] == ["refused", "refused"]
    assert book.alerts() == [("/acme", 100)]
    for told in ([100], [100], [100], [80, 100], [80, 90, 100], [80, 90, 100]):
        through(book, 100)
        assert [share for _, share in book.alerts()] == told


@pytest.mark.parametrize("refused_first", [True, False])
def test_a_sliding_window_hears_of_each_share_once(book: Book, refused_first: bool) -> None:
    """What settlements reach is told, each share once in the time of a window, whichever cells it was used in, a refusal counted in."""
    book.put(Limit("/acme", "usd", "minute", 1_000, sliding=True))
    for number in range(10):
        assert through(book, 100, now=NOW + number * SECOND) == "new"
        if refused_first and number == 5:
            assert through(book, 1, bound=500, now=NOW + number * SECOND) == "refused"
        since = {80: 7, 90: 8, 100: 5 if refused_first else 9}
        assert [share for _, share in book.alerts()] == [share for share, first in since.items() if number >= first]
    assert through(book, 100, now=NOW + 10 * SECOND) == "refused"
    assert [share for _, share in book.alerts()] == [80, 90, 100]
    for number in range(8):
        assert through(book, 100, now=NOW + (100 + number) * SECOND) == "new"
    assert [share for _, share in book.alerts()] == [80, 80, 90, 100]


def test_concurrent_requests_are_told_of_once_a_day(book: Book) -> None:
    """What is held counts, each share once a day however often it is reached, and again on the next one."""
    book.put(Limit("/acme", "concurrent", None, 5))
    for day in range(2):
        for _ in range(3):
            ones = [book.admit(now=NOW + day * DAY)[0] for _ in range(5)]
            assert [share for _, share in book.alerts()] == sorted([80, 90, 100] * (day + 1))
            assert book.admit(now=NOW + day * DAY)[1].kind == "refused"
            for one in ones:
                book.end(one, None, None)


def test_a_change_waits_for_admissions_and_they_for_it(book: Book) -> None:
    """A limit set while others admit has counted every one of them, none twice."""
    stop, admitted = threading.Event(), [0]

    def admit() -> None:
        while not stop.is_set():
            admitted[0] += book.admit(1)[1].kind == "new"

    thread = threading.Thread(target=admit)
    thread.start()
    for number in range(20):
        time.sleep(0.01)
        book.put(Limit("/acme", "requests", "day", 10**9, task=None, model=f"*{'/' * (number % 2)}*"))
        book.put(remove=[Limit("/acme", "requests", "day", 1, model=f"*{'/' * (number % 2)}*")])
        book.put(Limit("/acme", "requests", "day", 10**9))
        if number < 19:
            book.put(remove=[Limit("/acme", "requests", "day", 1)])
    stop.set()
    thread.join()
    assert admitted[0] > 0
    assert book.counts()["/acme", "requests per day"] == (admitted[0], 0)


def test_the_audit_names_a_counter_that_says_otherwise(book: Book) -> None:
    """What is used and held agrees with calls and open requests until a counter, or what a request holds, is changed by hand."""
    book.put(
        Limit("/acme", "usd", "day", 1_000), Limit("/acme", "requests", "day", 9), Limit("/", "concurrent", None, 9)
    )
    through, _ = book.admit()
    book.start(through)
    book.end(through, 1, None)
    book.settle(through, 1, None, tokens=None, bound=70)
    book.admit()

    def differing() -> list[tuple[str, int | None, int | None]]:
        with reading(book.engine) as db:
            found = counted(db, NOW, 8)
        assert len(found) == 3
        return [
            (one.limit.subject, one.used, one.reserved)
            for one in found
            if (one.used, one.reserved) != (one.used_by_calls, one.held_by_requests)
        ]

    assert book.counts()["/acme", "usd per day"] == (70, 100)
    assert differing() == []
    # Counted anew, a call whose cost nobody knows counts with its own bound, as it did when it was settled.
    book.put(remove=[Limit("/acme", "usd", "day", 1_000)])
    book.put(Limit("/acme", "usd", "day", 1_000))
    assert book.counts()["/acme", "usd per day"] == (70, 100)
    assert differing() == []
    with book.engine.begin() as db:
        db.execute(COUNTERS.update().where(COUNTERS.c.subject == "usd per day").values(used=71))
        db.execute(COUNTERS.delete().where(COUNTERS.c.subject == "requests per day"))
        db.execute(COUNTERS.update().where(COUNTERS.c.subject == "concurrent").values(reserved=2))
    assert differing() == [("concurrent", 0, 2), ("requests per day", None, None), ("usd per day", 71, 100)]
