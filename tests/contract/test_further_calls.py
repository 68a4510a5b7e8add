"""The further calls of a request under limits, the same on SQLite and on PostgreSQL: what each needs, and what is held again."""

from __future__ import annotations

from sqlalchemy import select

from config import upkeep
from config.audit import balances
from config.database import reading
from config.models import ACCOUNTS, REQUESTS
from core.attempts import Begin, OverLimit
from core.limits import SOON_MS, Limit
from tests.contract.book import DAY, NOW, SECOND, Book


def test_a_later_call_of_a_request_finds_no_room_in_a_sliding_window_that_others_filled(book: Book) -> None:
    """It counts where the request was admitted, in every window that has that in it, also those that ended since."""
    book.put(Limit("/acme", "tokens", "minute", 20, sliding=True))
    one, _ = book.admit()
    book.start(one)
    book.end(one, 1, 90, answer=None)
    book.settle(one, 1, 90, tokens=10)
    assert book.admit(now=NOW + 30 * SECOND)[1].kind == "new"
    assert isinstance(book.start(one, now=NOW + 31 * SECOND), OverLimit)


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
