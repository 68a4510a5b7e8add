"""Calls whose worker died and whose record never came back, the same on SQLite and on PostgreSQL: ended, accounted, given back."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, select

from agents.abandoned import AbandonedCalls
from agents.ledgers import Ledgers
from agents.meter import Meter
from agents.outgoing import Encoder
from agents.planning import Plan
from config import energy, energy_prices, ledger, limits, upkeep
from config.database import reading
from config.energy_audit import balances
from config.limit_audit import counted
from config.limit_models import COUNTERS
from config.models import ATTEMPTS, REQUESTS
from config.transactions import Transactions
from core.accounts import account, path_of
from core.attempts import Begin
from core.energy import EnergyPrice
from core.limits import Amounts, Asking, Limit
from core.outcome import Drop, Emit, Outgoing, Record, pack
from core.topics import USAGE
from schemas.codec import Codec, Event
from tests.contract.book import DAY, NOW

CODEC = Codec()
LIMITS = (
    Limit("/acme", "usd", "day", 1_000),
    Limit("/acme", "tokens", "day", 1_000),
    Limit("/acme/user:*", "concurrent", None, 1),
)
MODEL = {"provider": "openai", "model": "gpt-5", "max_output_tokens": 10, "reserved_nano_usd": 100}
PLAN = Plan({"route": "support", "candidates": [MODEL], "prompt_version": "2"})


class Left:
    """A ledger with an overdue request whose worker has begun a call and died, and the worker that looks for such."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.now = NOW
        self.published: list[Outgoing] = []
        self.runner = asyncio.Runner()
        self.transactions = Transactions(engine, 10, 0.001)
        self.another()
        with engine.begin() as db:
            limits.change(db, limits.Edit(LIMITS), "ana", NOW)
            energy_prices.change(db, [EnergyPrice(None, "openai/*", None, 3)], (), "ana", NOW)
            energy.grant(db, account("acme", "user", "ana"), 10, "op", NOW)
            upkeep.heartbeat(db, "dead", NOW + DAY + 1)
            self.id = self.admit(db)
            assert ledger.start(db, [self.asks("dead")])[0].step == Begin(1, "first")

    def another(self) -> None:
        """Another process takes over."""
        encoder = Encoder(CODEC, "meter", lambda: self.now)
        self.calls = AbandonedCalls(self.transactions, encoder, self.send, lambda: self.now, "living")

    def admit(self, db: Any) -> str:
        one = str(uuid.uuid4())
        path = path_of("acme", "search", "ana", "k/1")
        asking = Asking(path, "draft", ("openai/gpt-5",), Amounts(100, 10), ("cheap",))
        entry = ledger.Admission(one, bytes(32), "acme", 100, None, NOW, PLAN.packed(), asking, NOW + DAY)
        assert ledger.admit(db, [entry])[0].kind == "new"
        return one

    def asks(self, owner: str) -> ledger.Start:
        return ledger.Start(self.id, owner, self.now, None, 5, True)

    async def send(self, events: tuple[Outgoing, ...]) -> None:
        self.published += events

    def look(self) -> int:
        return self.runner.run(self.calls.look())

    def meter(self, event: Outgoing) -> Any:
        record = Record(USAGE.name, 0, 0, event.key, event.value, event.headers, self.now)
        return self.runner.run(Meter(CODEC, Ledgers(self.transactions))(record))

    def expire(self) -> int:
        with self.engine.begin() as db:
            return upkeep.expire(db, self.now)

    def counts(self) -> dict[str, tuple[int, int]]:
        with reading(self.engine) as db:
            return {row.subject: (row.used, row.reserved) for row in db.execute(select(COUNTERS))}

    def credits(self) -> tuple[int, int]:
        """Left and reserved."""
        with reading(self.engine) as db:
            balance = balances(db, account("acme", "user", "ana"), NOW)[0]
        return balance.left, balance.reserved

    def facts(self) -> list[Event]:
        return [CODEC.decode("LlmUsage", event.value) for event in self.published]


HELD = {"usd per day": (0, 100), "tokens per day": (0, 10), "concurrent": (0, 1)}
GIVEN_BACK = {"usd per day": (100, 0), "tokens per day": (10, 0), "concurrent": (0, 0)}


@pytest.fixture
def left(engine: Engine) -> Iterator[Left]:
    made = Left(engine)
    yield made
    made.runner.run(made.transactions.close())
    made.runner.close()


def test_a_call_that_never_returns_is_ended_and_frees_what_its_request_held(left: Left) -> None:
    """Not before its request is overdue and its worker's lease has run out. Then its fact says that nobody knows its outcome, its bound
    stays counted, and the place among concurrent requests, the rest of the money and the energy are given back."""
    left.now = NOW + DAY - 1
    assert (left.look(), left.expire()) == (0, 0)
    left.now = NOW + DAY
    assert (left.look(), left.expire()) == (0, 0)
    left.now = NOW + DAY + 1
    assert left.look() == 1
    assert (left.counts(), left.credits()) == (HELD, (7, 3))
    [fact] = left.facts()
    said = {name: fact[name] for name in (
        "request_id", "tenant", "project", "user", "api_key_id", "task", "provider", "model", "status", "cost_status",
        "cost_nano_usd", "reserved_nano_usd", "route", "prompt_version", "started_at", "finished_at",
    )}  # fmt: skip
    assert said == {
        "request_id": left.id, "tenant": "acme", "project": "search", "user": "ana", "api_key_id": "k/1", "task": "draft",
        "provider": "openai", "model": "gpt-5", "status": "outcome_unknown", "cost_status": "unknown",
        "cost_nano_usd": None, "reserved_nano_usd": 100, "route": "support", "prompt_version": "2", "started_at": NOW,
        "finished_at": left.now,
    }  # fmt: skip
    assert left.expire() == 0
    assert left.meter(left.published[0]) == Emit(())
    assert left.expire() == 1
    assert (left.counts(), left.credits()) == (GIVEN_BACK, (10, 0))
    assert (left.look(), left.expire()) == (0, 0)
    with reading(left.engine) as db:
        [call] = db.execute(select(ATTEMPTS)).all()
        [request] = db.execute(select(REQUESTS)).all()
        found = counted(db, left.now, 8)
    assert (call.lost, call.ended_at, call.settled, request.expired_at) == (True, left.now, True, left.now)
    assert [(one.used, one.reserved) for one in found] == [(one.used_by_calls, one.held_by_requests) for one in found]


def test_what_a_dying_worker_did_not_publish_is_published_by_the_next_one(left: Left) -> None:
    """The same event under the same id, once by each process, until it is settled; settled twice it counts once."""
    left.now = NOW + DAY + 1
    assert (left.look(), left.look()) == (1, 0)
    left.now += 1
    left.another()
    assert (left.look(), left.look()) == (1, 0)
    first, second = left.published
    assert first == second
    assert isinstance(left.meter(first), Emit)
    assert isinstance(left.meter(second), Drop)
    left.another()
    assert left.look() == 0


def test_the_fact_of_a_call_that_ended_before_its_worker_died_is_published(left: Left) -> None:
    """What the ledger keeps of it goes out as it is, with its cost, and the request's hold expires like any other."""
    kept = pack((Outgoing(USAGE.name, left.id.encode(), b"as it was", []),))
    with left.engine.begin() as db:
        ended = ledger.EndedAttempt(1, kept, 40, "priced")
        assert ledger.end(db, [ledger.End(left.id, "dead", NOW, ended, None)]) == ["recorded"]
    left.now = NOW + DAY + 1
    assert left.look() == 1
    assert [event.value for event in left.published] == [b"as it was"]


def test_a_record_that_comes_back_after_all_goes_on_where_the_ledger_is(left: Left) -> None:
    """A worker that was taken for dead finds its result refused, and whoever has the record calls again where there is room."""
    left.now = NOW + DAY + 1
    left.look()
    with left.engine.begin() as db:
        late = ledger.EndedAttempt(1, b"late", 40, "priced")
        assert ledger.end(db, [ledger.End(left.id, "dead", left.now, late, b"answer")]) == ["refused"]
    left.meter(left.published[0])
    left.expire()
    with left.engine.begin() as db:
        assert ledger.start(db, [left.asks("living")])[0].step == Begin(2, "redelivery")
    assert (left.counts(), left.credits()) == (
        {"usd per day": (100, 100), "tokens per day": (10, 10), "concurrent": (0, 1)}, (7, 3),
    )  # fmt: skip


def test_an_abandoned_request_is_forgotten_like_an_answered_one(left: Left) -> None:
    """So many days after it was given up, not before, and not while its call is not settled."""
    left.now = NOW + DAY + 1
    left.look()
    with left.engine.begin() as db:
        assert upkeep.purge(db, left.now + 9 * DAY, 8) == 0
    left.meter(left.published[0])
    left.expire()
    with left.engine.begin() as db:
        assert upkeep.purge(db, left.now + 8 * DAY, 8) == 0
        assert upkeep.purge(db, left.now + 8 * DAY + 1, 8) == 1
        assert db.execute(select(ATTEMPTS.c.number)).all() == []
