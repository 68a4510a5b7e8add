"""Requests that are given up, as the ledger keeps it, the same on SQLite and PostgreSQL: after a crash, and while they wait for room."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest
from sqlalchemy import Engine, select

from agents.admit import Admit, AdmitRules
from agents.cancel import Cancellations, keep_cancelled
from agents.ledgers import Ledgers
from agents.planning import Planner
from config import ledger, limits, upkeep
from config.limit_models import COUNTERS
from config.models import REQUESTS
from config.registry import from_environment
from config.settings import Settings
from config.tasks import Tasks
from config.transactions import Transactions
from core.attempts import Begin, Expire, Finished, Left
from core.limits import Limit
from core.outcome import Emit, Outcome, Record
from core.topics import REQUESTS as TOPIC
from core.topics import RESPONSES
from schemas.codec import Codec
from tests.contract.calling import llm_call
from tests.contract.simulator import Simulator
from tests.contract.test_cancelled_calls import Lane, now_us
from tests.contract.test_ledger import Book
from tests.examples import request

CODEC, SETTINGS = Codec(), Settings()


@pytest.fixture
def book(engine: Engine) -> Book:
    return Book(engine)


def cancel(engine: Engine, request_id: str, tenant: str | None, at: int = 5) -> None:
    """Have it kept, as every worker does that hears of it."""

    async def keep() -> None:
        transactions = Transactions(engine, 10, 0.001)
        await keep_cancelled(Ledgers(transactions), request_id, tenant, at)
        await transactions.close()

    asyncio.run(keep())


def cancelled_at(engine: Engine) -> list[int | None]:
    with engine.connect() as db:
        return list(db.execute(select(REQUESTS.c.cancelled_at)).scalars())


@pytest.mark.parametrize("named", [True, False])
def test_no_call_of_a_cancelled_request_is_begun(book: Book, named: bool) -> None:
    """Whoever asks for its next step is told so, a hedge is of no use, and however often it is cancelled, the first time stays."""
    book.admit()
    cancel(book.engine, book.id, book.account if named else None)
    cancel(book.engine, book.id, None, 9)
    started = book.start()
    assert (started.step, started.cancelled) == (Expire(), True)
    assert book.start(beside=1, candidate=1).step == Left()
    assert cancelled_at(book.engine) == [5]


@pytest.mark.parametrize(
    ("request_id", "tenant"),
    [(None, "another"), ("2f1b7c1e-6f0e-4d8e-9a53-0d6a2b1f4c77", None), ("no id", None), (None, "acme\x00")],
)
def test_other_requests_go_on(book: Book, request_id: str | None, tenant: str | None) -> None:
    """Neither another tenant's word, nor one about another request, nor one that makes no sense, changes anything."""
    book.admit()
    cancel(book.engine, request_id or book.id, tenant)
    started = book.start()
    assert (started.step, started.cancelled) == (Begin(1, "first"), False)


def test_an_answer_stands(book: Book) -> None:
    """A word that comes after the answer does nothing."""
    book.admit()
    book.start()
    assert book.end(1, b"answer")
    cancel(book.engine, book.id, None)
    assert book.start().step == Finished()
    assert cancelled_at(book.engine) == [None]


@pytest.mark.parametrize("policy", ["retry", "fail"])
@pytest.mark.parametrize("under_way", [True, False])
def test_a_worker_that_starts_after_a_crash_makes_no_call(
    engine: Engine, simulator: Simulator, under_way: bool, policy: str
) -> None:
    """It has not heard of the cancellation, and ends the request so all the same; the call that was cut off is accounted."""
    asked = llm_call("openai")
    asked["request"].update(request_id=str(uuid.uuid4()), on_unknown_outcome=policy)  # type: ignore[typeddict-item]
    request_id = asked["request"]["request_id"]
    with engine.begin() as db:
        upkeep.heartbeat(db, "worker", now_us() + 3_600_000_000)
        ledger.admit(db, [ledger.Admission(request_id, bytes(32), "acme", 1, None, now_us())])
        if under_way:
            ledger.start(db, [ledger.Start(request_id, "dead", now_us(), None, 3, True)])
    cancel(engine, request_id, "acme")

    async def restarted() -> Lane:
        lane = Lane(engine, simulator, "openai")
        await lane.deal_with(asked)
        await lane.close()
        return lane

    lane = asyncio.run(restarted())
    [answer] = lane.events(RESPONSES.record)
    assert (answer["outcome"], answer["error"]["code"], answer["attempts"]) == ("failed", "caller_cancelled", under_way)
    assert [usage["error_code"] for usage in lane.events("LlmUsage")] == ["provider_outcome_unknown"] * under_way
    assert simulator.calls() == []


def test_a_request_that_waits_for_room_ends(engine: Engine) -> None:
    """It is answered at once, holds nothing, and its place in the line is free; delivered again it has the same answer."""
    with engine.begin() as db:
        limits.change(db, limits.Edit([Limit("/acme", "concurrent", None, 1)]), "test", now_us())
    cancellations = Cancellations()
    first, waits, early = request(), request(on_limit="wait"), request()

    async def nowhere(_: str) -> int | None:
        return None

    async def story() -> None:
        transactions = Transactions(engine, most=10, linger=0.001)
        planner = Planner(lambda: from_environment(SETTINGS), dict, SETTINGS.models, 4_096)
        rules = AdmitRules(SETTINGS.max_request_bytes, (), wait_seconds=60, most_waiting=10)
        stage = Admit(
            CODEC, Ledgers(transactions), lambda: Tasks.load(SETTINGS), planner, rules, nowhere, now_us,
            cancellations=cancellations,
        )  # fmt: skip

        def deal(asked: Any) -> asyncio.Task[Outcome]:
            value = CODEC.encode("LlmRequest", asked)
            record = Record(TOPIC.name, 0, 0, asked["request_id"].encode(), value, [], now_us())
            return asyncio.ensure_future(stage(record))

        async def answer(task: asyncio.Task[Outcome]) -> Any:
            outcome = await task
            assert isinstance(outcome, Emit)
            [event] = outcome.events
            assert event.topic == RESPONSES.name
            return CODEC.decode("LlmResponse", event.value)

        await deal(first)
        waiting = deal(waits)
        while not stage.waiting:
            await asyncio.sleep(0.01)
        cancellations.cancel(waits["request_id"], "globex")
        await asyncio.sleep(0.3)
        assert stage.waiting == 1
        cancellations.cancel(waits["request_id"], "acme")
        told = await answer(waiting)
        assert (told["outcome"], told["error"]["code"], told["cost_nano_usd"]) == ("refused", "caller_cancelled", 0)
        assert stage.waiting == 0
        assert await answer(deal(waits)) == told
        # And one whose end is known before it comes.
        cancellations.cancel(early["request_id"], None)
        assert (await answer(deal(early)))["error"]["code"] == "caller_cancelled"
        await transactions.close()

    asyncio.run(story())
    with engine.connect() as db:
        assert [(row.used, row.reserved) for row in db.execute(select(COUNTERS))] == [(0, 1)]
