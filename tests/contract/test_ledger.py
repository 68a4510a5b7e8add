"""The ledger's contract, the same on SQLite and on PostgreSQL."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from sqlalchemy import Engine

from config import audit, ledger, settling, upkeep
from config.database import open_database, reading
from config.settings import SettingsError
from core.attempts import Begin, Ending, Expire, Finished, GiveUp, Lost, Moved, Wait

NOW = 1_795_258_680_000_000
SECOND = 1_000_000


class Book:
    """The ledger, one transaction an operation, for one request unless told otherwise."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.id = str(uuid.uuid4())
        # PostgreSQL is shared by the module's tests: an account of its own keeps each test's sums apart.
        self.account = f"acme-{self.id}"

    def run(self, operation: Callable[..., Sequence[Any]], *entries: Any) -> list[Any]:
        with self.engine.begin() as db:
            return list(operation(db, entries))

    def admit(self, body: bytes = b"body", answer: bytes | None = None, reserve: int = 1_000) -> ledger.Admitted:
        entry = ledger.Admission(self.id, body.ljust(32), self.account, reserve, answer, NOW)
        found: ledger.Admitted = self.run(ledger.admit, entry)[0]
        return found

    def start(self, owner: str = "w1", now: int = NOW, **rules: Any) -> ledger.Started:
        rules = {"deadline": None, "max_attempts": 3, "retry_unknown": True, **rules}
        found: ledger.Started = self.run(ledger.start, ledger.Start(self.id, owner, now, **rules))[0]
        return found

    def end(
        self, number: int | None, answer: bytes | None, owner: str = "w1", cost: int | None = 70, lost: bool = False,
        move_to: int | None = None,
    ) -> bool:  # fmt: skip
        return self.ending(number, answer, owner, cost, lost, move_to) == "recorded"

    def ending(
        self, number: int | None, answer: bytes | None, owner: str = "w1", cost: int | None = 70, lost: bool = False,
        move_to: int | None = None, **how: Any,
    ) -> Ending:  # fmt: skip
        status = "priced" if cost is not None else "unknown"
        attempt = ledger.EndedAttempt(number, f"usage {number}".encode(), cost, status) if number else None
        found: Ending = self.run(ledger.end, ledger.End(self.id, owner, NOW, attempt, answer, lost, move_to, **how))[0]
        return found

    def settle(self, number: int, cost: int | None = 70) -> bool | None:
        found: bool | None = self.run(settling.settle, settling.Settlement(self.id, number, cost, 1_000))[0]
        return found

    def beat(self, owner: str, until: int) -> None:
        with self.engine.begin() as db:
            upkeep.heartbeat(db, owner, until)

    def sums(self) -> tuple[int, int, int]:
        """Spent, reserved and unknown of the account."""
        with self.engine.begin() as db:
            row = db.exec_driver_sql(
                f"SELECT spent_nano, reserved_nano, unknown_nano FROM accounts WHERE account = '{self.account}'"
            ).first()
        return (int(row[0]), int(row[1]), int(row[2])) if row else (0, 0, 0)


@pytest.fixture
def book(engine: Engine) -> Book:
    return Book(engine)


def test_a_request_is_admitted_once_and_its_money_held_once(book: Book) -> None:
    """The same id with the same body is the same request, with another body it is refused; neither holds money again."""
    assert book.admit().kind == "new"
    again = book.admit()
    assert (again.kind, again.answer, again.admitted_at) == ("same", None, NOW)
    assert book.admit(b"another").kind == "other"
    assert book.sums() == (0, 1_000, 0)


def test_one_batch_sees_its_own_entries(book: Book) -> None:
    """The same id twice in one transaction is admitted once."""
    entry = ledger.Admission(book.id, b"b" * 32, book.account, 500, None, NOW)
    first, second = book.run(ledger.admit, entry, entry)
    assert (first.kind, second.kind) == ("new", "same")
    assert book.sums() == (0, 500, 0)


def test_a_refused_request_holds_nothing_and_keeps_its_answer(book: Book) -> None:
    """A refusal is stored with its bytes, reserves nothing, and is never called."""
    assert book.admit(answer=b"refused").answer == b"refused"
    assert book.admit().answer == b"refused"
    assert isinstance(book.start().step, Finished)
    assert book.sums() == (0, 0, 0)


def test_a_finished_call_is_never_made_again(book: Book) -> None:
    """After the answer is stored, whoever asks gets the same bytes and the usage of every call, and no leave to call."""
    book.admit()
    assert book.start().step == Begin(1, "first")
    assert book.end(1, b"answer")
    started = book.start(owner="w2")
    assert isinstance(started.step, Finished)
    assert (started.answer, [e.usage for e in started.ended]) == (b"answer", [b"usage 1"])


def test_a_retry_is_the_next_number(book: Book) -> None:
    """A failed call that ended is followed by attempt 2, with the first one's cost at hand."""
    book.admit()
    book.start()
    assert book.end(1, None, cost=0)
    started = book.start()
    assert started.step == Begin(2, "retry")
    assert [(e.number, e.cost_nano) for e in started.ended] == [(1, 0)]


def test_a_call_of_a_living_worker_is_left_alone(book: Book) -> None:
    """While the owner's lease runs, another worker waits; once it has run out, the call counts as lost."""
    book.admit()
    book.beat("w1", NOW + 10 * SECOND)
    book.start(owner="w1")
    assert isinstance(book.start(owner="w2", now=NOW + 9 * SECOND).step, Wait)
    lost = book.start(owner="w2", now=NOW + 11 * SECOND).step
    assert isinstance(lost, Lost)
    assert (lost.open.number, lost.open.started_at) == (1, NOW)


def test_a_worker_that_left_is_not_waited_for(book: Book) -> None:
    """An orderly end gives its open calls free at once."""
    book.admit()
    book.beat("w1", NOW + 10 * SECOND)
    book.start(owner="w1")
    with book.engine.begin() as db:
        upkeep.leave(db, "w1")
    assert isinstance(book.start(owner="w2").step, Lost)


def test_a_lost_call_is_repeated_or_given_up_as_the_request_says(book: Book) -> None:
    """`retry` makes the next attempt after a crash, `fail` and the limit of attempts make none."""
    book.admit()
    book.start(owner="gone")
    assert book.end(1, None, owner="w2", cost=None, lost=True)
    assert isinstance(book.start(owner="w2", retry_unknown=False).step, GiveUp)
    assert isinstance(book.start(owner="w2", max_attempts=1).step, GiveUp)
    assert book.start(owner="w2").step == Begin(2, "redelivery")


def test_a_zombies_late_answer_does_not_count(book: Book) -> None:
    """A worker whose call was taken for lost cannot end it any more, nor overwrite the answer that stands."""
    book.admit()
    book.start(owner="zombie")
    assert book.end(1, None, owner="w2", cost=None, lost=True)
    assert not book.end(1, b"late", owner="zombie")
    assert book.start(owner="w2").step == Begin(2, "redelivery")
    assert not book.end(1, b"late", owner="zombie")
    assert book.end(2, b"answer", owner="w2")
    assert book.start().answer == b"answer"


def test_the_deadline_ends_what_has_not_begun(book: Book) -> None:
    """After its deadline a request is called no more."""
    book.admit()
    assert isinstance(book.start(deadline=NOW).step, Expire)
    assert book.end(None, b"expired")
    assert book.sums() == (0, 0, 0)


def test_settling_moves_money_once_and_frees_the_reservation_at_the_end(book: Book) -> None:
    """However often a usage event comes, it is spent once; the reservation goes when the last call is settled."""
    book.admit()
    book.start()
    book.end(1, None, cost=30)
    book.start()
    book.end(2, b"answer", cost=70)
    assert book.settle(2) is True
    assert book.sums() == (70, 1_000, 0)
    assert (book.settle(2), book.settle(1, cost=30), book.settle(1, cost=30)) == (False, True, False)
    assert book.sums() == (100, 0, 0)
    assert book.settle(9) is None


def test_a_request_goes_on_to_another_candidate_once(book: Book) -> None:
    """A lane whose candidate's turn is over is told so however often it asks, also after a crash; the numbers go on."""
    book.admit()
    assert book.start().step == Begin(1, "first")
    assert book.end(1, None, cost=30, move_to=2)
    assert book.start().step == book.start(owner="w2", candidate=1).step == Moved(2)
    started = book.start(owner="w2", candidate=2)
    assert started.step == Begin(2, "fallback")
    assert [(each.number, each.candidate, each.cost_nano) for each in started.ended] == [(1, 0, 30)]
    assert book.end(2, None, owner="w2", cost=0)
    assert book.start(owner="w2", candidate=2).step == Begin(3, "retry")
    assert book.end(3, b"answer", owner="w2")
    assert isinstance(book.start().step, Finished)


def test_a_candidate_whose_turn_is_over_cannot_move_the_request_back(book: Book) -> None:
    """A lane that was late moves nothing, and one that passes a candidate over needs no call for it."""
    book.admit()
    assert book.end(None, None, move_to=1)
    assert not book.end(None, None, owner="late", move_to=1)
    assert book.start(candidate=1).step == Begin(1, "first")


def test_what_is_held_is_freed_when_the_answer_comes_after_every_settlement(book: Book) -> None:
    """The calls of a request can be settled before it is answered without a further call."""
    book.admit()
    book.start()
    book.end(1, None, cost=30, move_to=1)
    assert book.settle(1, cost=30) is True
    assert book.sums() == (30, 1_000, 0)
    assert isinstance(book.start(candidate=1, deadline=NOW).step, Expire)
    assert book.end(None, b"expired")
    assert book.sums() == (30, 0, 0)


def test_a_call_of_unknown_cost_stays_counted_at_its_bound(book: Book) -> None:
    """Money that a cut-off call may have cost is neither spent nor free."""
    book.admit()
    book.start(owner="gone")
    book.end(1, None, owner="w2", cost=None, lost=True)
    book.start(owner="w2")
    book.end(2, b"answer", owner="w2")
    book.settle(1, cost=None)
    book.settle(2)
    assert book.sums() == (70, 0, 1_000)


def test_an_adjustment_moves_money_once_also_for_a_forgotten_call(book: Book) -> None:
    """However often it comes, in one batch or two, it moves what is spent by its signed difference and frees its bound once."""
    book.admit()
    book.start()
    book.end(1, b"answer", cost=None)
    book.settle(1, cost=None)
    assert book.sums() == (0, 0, 1_000)
    dearer = settling.Adjustment(str(uuid.uuid4()), book.account, NOW, 500, 1_000)
    cheaper = settling.Adjustment(str(uuid.uuid4()), book.account, NOW, -120, 0)
    assert book.run(settling.adjust, dearer, dearer) == [True, False]
    assert book.run(settling.adjust, cheaper, dearer) == [True, False]
    assert book.sums() == (380, 0, 0)
    with reading(book.engine) as db:
        assert dict(audit.adjusted(db, [dearer.adjustment_id, "unknown"])) == {dearer.adjustment_id: 500}
        (balance,) = (each for each in audit.balances(db) if each.account == book.account)
    assert (balance.spent_nano, balance.settled_nano, balance.held_nano) == (380, 380, 0)


def test_reading_sees_one_moment_and_holds_up_nobody(book: Book) -> None:
    """What is read stays as it was at the first look, while another transaction writes and commits."""
    book.admit()
    with reading(book.engine) as db:
        assert [row.answered for row in audit.held(db, [book.id])] == [False]
        book.start()
        assert book.end(1, b"answer", cost=7)
        assert [(row.answered, row.attempts) for row in audit.held(db, [book.id])] == [(False, ())]
    with reading(book.engine) as db:
        assert [(row.answered, row.attempts) for row in audit.held(db, [book.id])] == [
            (True, (audit.HeldAttempt(1, False, 7, None, None),))
        ]


def test_what_was_never_admitted_is_not_called(book: Book) -> None:
    """A call without an admission in the ledger gets no leave."""
    assert book.start().step is None


def test_answered_and_settled_requests_are_forgotten_in_time(book: Book) -> None:
    """Purging takes what is answered, settled and old, and leaves the rest."""
    book.admit()
    book.start()
    book.end(1, b"answer")
    later = NOW + 9 * upkeep.DAY_US
    with book.engine.begin() as db:
        upkeep.purge(db, later, 8)
    assert book.admit().kind == "same"
    book.settle(1)
    with book.engine.begin() as db:
        assert upkeep.purge(db, later, 8) >= 1
    assert book.admit().kind == "new"


def test_many_workers_at_once_begin_a_call_once(book: Book) -> None:
    """Eight threads ask for the same forty calls: every call is begun by exactly one of them, nothing deadlocks."""
    ids = [str(uuid.uuid4()) for _ in range(40)]
    book.run(ledger.admit, *(ledger.Admission(i, b"b" * 32, book.account, 10, None, NOW) for i in ids))
    for number in range(8):
        book.beat(f"w{number}", NOW + 60 * SECOND)
    begun: list[str] = []

    def work(owner: str, order: list[str]) -> None:
        for start in range(0, len(order), 10):
            batch = order[start : start + 10]
            found = book.run(ledger.start, *(ledger.Start(i, owner, NOW, None, 3, True) for i in batch))
            begun.extend(i for i, f in zip(batch, found, strict=True) if isinstance(f.step, Begin))

    orders = [ids if n % 2 else ids[::-1] for n in range(8)]
    threads = [threading.Thread(target=work, args=(f"w{n}", order)) for n, order in enumerate(orders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(begun) == sorted(ids)


@pytest.mark.parametrize("url", ["mysql://localhost/x", "not a url"])
def test_an_unusable_database_url_is_refused_with_what_to_use(url: str) -> None:
    """The sentence names the setting and a form that works, and repeats no password."""
    with pytest.raises(SettingsError, match=r"MILLSTREAM_DATABASE_URL.*sqlite"):
        open_database(url)
