"""Two calls of one request at once: what the ledger makes of it, the same on SQLite and on PostgreSQL."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from config import ledger
from config.upkeep import leave
from core.attempts import Begin, Finished, GiveUp, Left, Lost, Moved, Wait
from tests.contract.test_ledger import NOW, SECOND, Book


@pytest.fixture
def book(engine: Engine) -> Book:
    return Book(engine)


def hedged(book: Book) -> Book:
    """A request whose first call is open in worker `a`, and the hedge beside it in worker `b`, at candidate 2."""
    book.admit()
    book.beat("a", NOW + SECOND)
    book.beat("b", NOW + SECOND)
    assert book.start("a").step == Begin(1, "first")
    assert hedge(book).step == Begin(2, "hedge")
    return book


def hedge(book: Book, owner: str = "b", beside: int = 1, **rules: Any) -> ledger.Started:
    return book.start(owner, candidate=2, beside=beside, **rules)


@pytest.mark.parametrize(("winner", "loser"), [(("a", 1), ("b", 2)), (("b", 2), ("a", 1))])
def test_the_first_answer_stands_and_both_calls_are_paid(book: Book, winner: Any, loser: Any) -> None:
    """The second answer is no answer, its call is recorded all the same, and what is held goes when both are settled."""
    hedged(book)
    assert book.sums() == (0, 1_000, 0)
    assert book.ending(winner[1], b"won", winner[0], completed=True, counted=(0, 1)) == "recorded"
    assert book.settle(winner[1]) is True
    assert book.sums() == (70, 1_000, 0)
    assert book.ending(loser[1], b"lost", loser[0], cost=30) == "left"
    assert book.ending(loser[1], b"lost", loser[0], cost=30) == "refused"
    assert book.settle(loser[1], 30) is True
    assert book.sums() == (100, 0, 0)
    started = book.start("c")
    assert (started.step, started.answer, [each.usage for each in started.ended]) == (
        Finished(), b"won", [b"usage 1", b"usage 2"],
    )  # fmt: skip


def test_both_answers_in_one_transaction_are_one(book: Book) -> None:
    """A worker with both lanes may end both calls in one batch: the first of them is the answer."""
    hedged(book)
    first, second = (
        ledger.End(book.id, owner, NOW, ledger.EndedAttempt(number, b"usage", 7, "priced"), answer)
        for number, owner, answer in ((2, "b", b"hedge"), (1, "a", b"first"))
    )
    assert book.run(ledger.end, first, second) == ["recorded", "left"]
    assert book.start("c").answer == b"hedge"


def test_a_hedge_goes_on_when_the_call_beside_it_fails(book: Book) -> None:
    """The failure is no answer while the hedge is open: the turn is the hedge's, which then goes on as any call."""
    hedged(book)
    assert book.ending(1, b"failed", "a", cost=0, completed=False) == "left"
    assert book.start("a").step == Moved(2)
    assert hedge(book, "b2", now=NOW + 2 * SECOND).step == Lost(*_opened(book, "hedge", 2))
    assert book.ending(2, b"failed", "b", completed=False, counted=(0, 1)) == "changed"
    assert book.ending(2, None, "b", completed=False, counted=(1, 0), cost=None) == "recorded"
    assert book.start("b", candidate=2, beside=1).step == Begin(3, "retry")


def _opened(book: Book, reason: str, number: int) -> list[Any]:
    found = hedge(book, "b2", now=NOW + 2 * SECOND).step
    assert isinstance(found, Lost)
    assert (found.open.reason, found.open.number) == (reason, number)
    return [found.open]


def test_a_call_goes_on_when_its_hedge_fails(book: Book) -> None:
    """The hedge's failure is recorded and answers nothing; its record has nothing more to do, the call's turn stays."""
    hedged(book)
    assert book.ending(2, b"failed", "b", completed=False) == "left"
    assert isinstance(hedge(book).step, Left)
    assert isinstance(book.start("x").step, Wait)
    assert book.ending(1, b"won", "a", counted=(0, 0)) == "changed"
    assert book.ending(1, b"won", "a", counted=(1, 0)) == "recorded"


@pytest.mark.parametrize("dead", ["a", "b"])
def test_a_dead_worker_leaves_the_other_able_to_finish(book: Book, dead: str) -> None:
    """The call of the one that died is recorded as cut off and no more; the other call's answer is the request's."""
    hedged(book)
    number, other = (1, 2) if dead == "a" else (2, 1)
    with book.engine.begin() as db:
        leave(db, dead)
    step = (book.start("new") if dead == "a" else hedge(book, "new")).step
    assert isinstance(step, Lost) and step.open.number == number
    assert book.ending(number, None, "new", cost=None, lost=True) == "left"
    assert book.ending(number, b"late", dead) == "refused"
    assert book.ending(other, b"won", "b" if dead == "a" else "a", counted=(1, 0)) == "recorded"
    assert [book.settle(number, None), book.settle(other)] == [True, True]
    assert book.sums() == (70, 0, 1_000)


@pytest.mark.parametrize("dead", ["a", "b"])
def test_a_call_that_died_after_the_answer_is_accounted(book: Book, dead: str) -> None:
    """Delivered again, the loser's record finds its call cut off and has it accounted; the answer stays as it is."""
    hedged(book)
    mine, theirs = ((1, "a"), (2, "b")) if dead == "a" else ((2, "b"), (1, "a"))
    assert book.ending(theirs[0], b"won", theirs[1]) == "recorded"
    with book.engine.begin() as db:
        leave(db, dead)
    step = (book.start("new") if dead == "a" else hedge(book, "new")).step
    assert isinstance(step, Lost) and step.open.number == mine[0]
    assert book.ending(mine[0], b"unknown", "new", cost=None, lost=True) == "left"
    assert isinstance(book.start("new").step, Finished)
    assert [book.settle(1, None), book.settle(2, None)] == [True, True]
    assert book.sums() == (0, 0, 2_000)


def test_a_hedge_that_comes_too_late_is_left(book: Book) -> None:
    """Beside a call that has ended, an answer, another turn, or past the deadline, no hedge begins; nor twice at one candidate."""
    book.admit()
    assert isinstance(hedge(book).step, Left)
    book.start("a")
    assert isinstance(hedge(book, beside=0).step, Left)
    assert isinstance(hedge(book, deadline=NOW).step, Left)
    book.ending(1, None, "a", cost=0)
    assert isinstance(hedge(book).step, Left)
    assert book.start("a").step == Begin(2, "retry")
    assert isinstance(hedge(book).step, Left)
    assert hedge(book, beside=2).step == Begin(3, "hedge")
    book.ending(3, None, "b", cost=0)
    assert isinstance(hedge(book, beside=2).step, Left)
    book.ending(2, None, "a", cost=0, move_to=1)
    assert isinstance(hedge(book, beside=2).step, Left)
    assert book.sums() == (0, 1_000, 0)


class Lane:
    """A record of a lane and the worker that has it: what it does is what `agents.complete` does, by the ledger's word."""

    def __init__(self, world: World, place: int, beside: int | None = None) -> None:
        self.world = world
        self.place = place
        self.beside = beside
        self.calling: int | None = None
        self.acknowledged = False
        self.begin_worker()

    def begin_worker(self) -> None:
        """A new process, which knows nothing of a call that the one before it had begun."""
        self.owner, self.calling = f"w{uuid.uuid4().hex[:8]}", None
        self.world.book.beat(self.owner, NOW + 3_600 * SECOND)

    def die(self) -> None:
        """`kill -9`, and the lease run out."""
        with self.world.book.engine.begin() as db:
            leave(db, self.owner)
        self.begin_worker()

    def ask(self) -> None:
        """Ask the ledger what to do, and do it; at most one call is begun."""
        book = self.world.book
        started = book.start(self.owner, candidate=self.place, beside=self.beside)
        match started.step:
            case Begin(number, _):
                self.calling = number
            case Finished():
                self.world.published.add(started.answer or b"")
                self.acknowledged = True
            case Moved(place):
                self.world.lanes.append(Lane(self.world, place))
                self.acknowledged = True
            case Left():
                self.acknowledged = True
            case Lost(opened):
                self.finish(opened.number, None, lost=True)
            case GiveUp():
                if book.ending(None, b"unknown", self.owner) == "recorded":
                    self.answered(b"unknown")

    def finish(self, number: int, answer: bytes | None, lost: bool = False) -> None:
        """End a call, with an answer or, for the last candidate, a failure, as often as the count of the others changes."""
        book, came_to = self.world.book, "changed"
        last = answer is None and not lost and self.place == 2
        while came_to == "changed":
            with book.engine.begin() as db:
                [now] = ledger.calls_of(db, [book.id])
            came_to = book.ending(
                number, b"failed" if last else answer, self.owner, None if lost else 70, lost,
                None if answer or lost or last else self.place + 1,
                completed=answer is not None, counted=(len(now.ended), now.open - 1),
            )  # fmt: skip
        self.calling = None
        self.world.ends[number] = self.world.ends.get(number, 0) + (came_to != "refused")
        if came_to == "left":
            self.acknowledged = True
        elif came_to == "recorded" and (answer or last):
            self.answered(answer or b"failed")

    def answered(self, answer: bytes) -> None:
        """The one recorded answer, published and acknowledged."""
        self.world.answers.append(answer)
        self.world.published.add(answer)
        self.acknowledged = True


class World:
    """A request on its way, its lanes' records and what was published."""

    def __init__(self, engine: Engine) -> None:
        self.book = Book(engine)
        self.book.admit()
        self.lanes: list[Lane] = []
        self.answers: list[bytes] = []
        self.published: set[bytes] = set()
        self.ends: dict[int, int] = {}
        self.lanes.append(Lane(self, 0))

    def calls(self) -> ledger.Calls:
        with self.book.engine.begin() as db:
            return ledger.calls_of(db, [self.book.id])[0]

    def act(self, which: int, what: str) -> None:
        """One of the records that are not acknowledged goes a step on."""
        under_way = [lane for lane in self.lanes if not lane.acknowledged]
        if not under_way:
            return
        lane = under_way[which % len(under_way)]
        if what == "die":
            lane.die()
        elif lane.calling is None:
            lane.ask()
        elif what == "hedge" and lane.beside is None and lane.place < 2:
            self.lanes.append(Lane(self, 2, beside=lane.calling))
        elif what in ("answer", "fail"):
            lane.finish(lane.calling, b"by %d" % lane.calling if what == "answer" else None)


MOVES = st.tuples(st.integers(0, 3), st.sampled_from(["ask", "answer", "fail", "fail", "hedge", "hedge", "die"]))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(moves=st.lists(MOVES, max_size=25))
def test_whatever_happens_one_answer_stands_and_every_call_is_settled_once(engine: Engine, moves: list[Any]) -> None:
    """Calls, hedges, failures and deaths in any order: at most two calls are open at once, each is ended once, one answer is published,
    and nothing stays held."""
    world = World(engine)
    for which, what in moves:
        world.act(which, what)
        assert world.calls().open <= 2
    for turn in range(500):
        if all(lane.acknowledged for lane in world.lanes):
            break
        world.act(turn, "answer")
    calls = world.calls()
    assert all(lane.acknowledged for lane in world.lanes)
    assert (calls.answered, calls.open) == (True, 0)
    assert len(world.answers) == 1 and world.published == set(world.answers)
    assert world.ends == {call.number: 1 for call in calls.ended}
    for call in calls.ended:
        assert world.book.settle(call.number, call.cost_nano) is True
    spent = sum(call.cost_nano or 0 for call in calls.ended)
    assert world.book.sums() == (spent, 0, 1_000 * sum(call.cost_nano is None for call in calls.ended))
