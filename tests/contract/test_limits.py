"""Limits in the ledger, the same on SQLite and on PostgreSQL: what is held, used and given back, and counted from the start."""

from __future__ import annotations

import threading
import time
import uuid
from typing import Any

import pytest
from sqlalchemy import event, select

from config import counting, ledger, limits
from config.database import reading
from config.limit_audit import counted
from config.limit_models import COUNTERS
from config.models import ATTEMPTS, REQUESTS
from core.accounts import path_of
from core.attempts import Begin
from core.limits import Amounts, Asking, Limit
from tests.contract.book import DAY, NOW, SECOND, Book


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
