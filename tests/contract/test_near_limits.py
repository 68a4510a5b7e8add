"""What a request is told of limits that are nearly used up: in its call, the same when it is delivered again."""

from __future__ import annotations

import asyncio
from typing import Any

from sqlalchemy import Engine

from agents.admit import Admit, AdmitRules
from agents.ledgers import Ledgers
from agents.planning import Planner
from config import limits
from config.registry import from_environment
from config.settings import Settings
from config.tasks import Tasks
from config.transactions import Transactions
from core.limits import Limit
from core.outcome import Emit, Outgoing, Record
from core.topics import REQUESTS
from schemas.codec import Codec
from schemas.events import LlmRequest
from tests.examples import NOON, request

CODEC, SETTINGS = Codec(), Settings()


def put(engine: Engine, *wanted: Limit) -> None:
    with engine.begin() as db:
        limits.change(db, limits.Edit(wanted), "test", NOON)


def admitted(engine: Engine, *requests: LlmRequest) -> list[Outgoing]:
    """What the stage makes of requests, as a worker of its own."""

    async def nowhere(_: str) -> int | None:
        return None

    async def run() -> list[Outgoing]:
        transactions = Transactions(engine, most=10, linger=0.001)
        planner = Planner(lambda: from_environment(SETTINGS), dict, SETTINGS.models, 4_096)
        rules = AdmitRules(SETTINGS.max_request_bytes, ())
        stage = Admit(CODEC, Ledgers(transactions), lambda: Tasks.load(SETTINGS), planner, rules, nowhere, lambda: NOON)
        found: list[Outgoing] = []
        for each in requests:
            value = CODEC.encode("LlmRequest", each)
            outcome = await stage(Record(REQUESTS.name, 0, 0, each["request_id"].encode(), value, [], NOON))
            assert isinstance(outcome, Emit)
            found += outcome.events
        await transactions.close()
        return found

    return asyncio.run(run())


def near(event: Outgoing) -> list[tuple[str, str, int]]:
    call: Any = CODEC.decode("LlmCall", event.value)
    return [(each["account"], each["limit"], each["percent"]) for each in call["near_limits"]]


def test_from_four_fifths_on_a_call_names_the_limit(engine: Engine) -> None:
    """The request itself counts; hard and soft limits are named, what is further from its end and the platform's own are not."""
    put(
        engine, Limit("/acme/user:ana", "requests", "day", 5), Limit("/acme", "requests", "month", 4, hard=False),
        Limit("/acme", "requests", "hour", 100), Limit("/", "requests", "day", 5),
    )  # fmt: skip
    calls = admitted(engine, *(request() for _ in range(5)))
    assert [near(call) for call in calls] == [
        [],
        [],
        [],
        [("/acme", "requests per month", 100), ("/acme/user:ana", "requests per day", 80)],
        [("/acme", "requests per month", 125), ("/acme/user:ana", "requests per day", 100)],
    ]


def test_a_repetition_says_the_same_whatever_was_used_meanwhile(engine: Engine) -> None:
    """Delivered again to another worker, a request is the same call, though its limit is fuller, or gone, by then."""
    put(engine, Limit("/acme", "requests", "day", 5))
    early, late = request(), request()
    *_, first, second = admitted(engine, request(), request(), early, late)
    assert (near(first), near(second)) == ([], [("/acme", "requests per day", 80)])
    admitted(engine, request())
    assert admitted(engine, early, late) == [first, second]
    with engine.begin() as db:
        limits.change(db, limits.Edit(remove=[Limit("/acme", "requests", "day", 5)]), "test", NOON)
    assert admitted(engine, early, late) == [first, second]
