"""A budget raced for by four admit processes of the real pipeline that are killed, on SQLite and on PostgreSQL."""

from __future__ import annotations

import random
import re
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, select

from cli.exchange import Exchange
from cli.running import WORKERS, Running, running
from config import limits
from config.database import open_database, reading
from config.limit_models import COUNTERS
from config.models import ATTEMPTS, REQUESTS
from core.attempts import attempt_id
from core.limits import SOON_MS, Limit
from schemas.codec import Event
from tests.conftest import QUICK
from tests.contract.racing import deadlocks, watched
from tests.stack.asking import eventually, millstream, simulator, told

CENT, ROOM, USERS, ASKED, AGAIN = 10_000_000, 100, 7, 1_000, 200
#: How often a provider fails, and how often it does not answer in time.
FAILS, HANGS = 0.08, 0.03
#: Ten tokens of an answer cost a cent, and a prompt costs nothing.
PRICE, TOKENS = "input_uncached=0,output_text=1000", 10
ADMITS = [f"admit-{number}" for number in range(1, 5)]
RACING = dict.fromkeys(ADMITS, WORKERS["admit"]) | {name: WORKERS[name] for name in ("complete", "meter")}


@pytest.fixture(params=["sqlite", "postgresql"])
def pipeline(request: pytest.FixtureRequest) -> Iterator[Running]:
    """A pipeline with four admit processes, a model whose calls cost a cent, and room for a hundred of them."""
    environment = {
        **QUICK, "MILLSTREAM_MAX_ATTEMPTS": "1", "MILLSTREAM_CALL_TIMEOUT_SECONDS": "2",
        "MILLSTREAM_HEALTH_CHECK_SECONDS": "3600", "MILLSTREAM_BREAKER_FAILURES": "1000",
    }  # fmt: skip
    with running(workers=RACING, environment=environment, postgres=request.param == "postgresql") as run:
        yield run


def asked(luck: random.Random) -> Any:
    """A request for ten tokens by one of seven users, whose call may fail or hang."""
    chance = luck.random()
    sim: dict[str, Any] = {"latency_ms": 300, "usage": {"output": TOKENS}}
    if chance < FAILS + HANGS:
        sim = {"status": 500} if chance < FAILS else {"fault": "hang"}
    request = told(user=f"user {luck.randrange(USERS)}", sim=sim)
    return {**request, "parameters": {**request["parameters"], "max_output_tokens": TOKENS}}


@contextmanager
def killing(run: Running) -> Iterator[None]:
    """Kill the admit processes and the one that calls, one after another, and start each again; by the end all of them were."""

    def kill() -> None:
        for name in (*ADMITS, "complete"):
            time.sleep(1)
            run.workers[name].kill()
            run.start_worker(name, RACING[name][0])

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        yield
    finally:
        killer.join()


def race(run: Running) -> dict[str, Event]:
    """The answers to a thousand requests at once and to those, sent again, that others' calls were in the way of."""
    luck, exchange, answers = random.Random(7), Exchange(run.settings), dict[str, Event]()
    wanted = {request["request_id"]: request for request in (asked(luck) for _ in range(ASKED))}
    while wanted:
        for request in wanted.values():
            exchange.send(request)
        exchange.flush()
        found = exchange.answers(wanted, 90)
        assert found.keys() == wanted.keys()
        answers |= found
        held_up = [one for one, answer in found.items() if is_soon(answer)]
        renewed = ({**wanted[one], "request_id": str(uuid.uuid4())} for one in held_up[:AGAIN])
        wanted = {request["request_id"]: request for request in renewed}
    exchange.close()
    return answers


def is_soon(answer: Event) -> bool:
    """Whether a request was refused by what others hold, which they may give back."""
    return answer["outcome"] == "refused" and (answer["error"]["retry_after_ms"] or 0) == SOON_MS


def levels(engine: Engine) -> dict[str, tuple[int, int]]:
    """Used and reserved by account."""
    with reading(engine) as db:
        return {row.account: (row.used, row.reserved) for row in db.execute(select(COUNTERS))}


@pytest.mark.timeout(600)
def test_a_budget_raced_for_is_spent_to_the_cent_and_never_exceeded(pipeline: Running) -> None:
    """Three levels, failures, time-outs and kill -9: no level is over at any instant, nobody is refused while there is room, and at
    the end exactly a hundred requests are paid for, nothing is held, and those that were refused consumed nothing.
    """
    most = {"/": ROOM, "/acme": ROOM} | {f"/acme/user:user {number}": 20 for number in range(USERS)}
    millstream(pipeline, "models", "add", "openai/gpt-5-mini", "--price", PRICE)
    engine = open_database(pipeline.settings.database_url)
    with engine.begin() as db:
        wanted = [Limit(account, "usd", "month", cents * CENT) for account, cents in most.items()]
        limits.change(db, limits.Edit(wanted), "test", time.time_ns() // 1_000)
    with watched(engine) as looks, killing(pipeline):
        answers = race(pipeline)
    assert [seen for look in looks for (account, _), seen in look.items() if seen > most[account] * CENT] == []
    assert max(look["/", begins] for look in looks for account, begins in look if account == "/") == ROOM * CENT
    refused = {one: answer for one, answer in answers.items() if answer["outcome"] == "refused"}
    for answer in refused.values():
        assert answer["error"]["code"] == "policy_budget_exceeded"
        assert re.search(r"; 0 USD of it are left and the request may take 0\.01 USD", answer["error"]["message"])

    assert eventually(lambda: not any(held for _, held in levels(engine).values()), 60), levels(engine)
    found = levels(engine)
    assert found["/"] == found["/acme"] == (ROOM * CENT, 0)
    assert sum(used for account, (used, _) in found.items() if "user" in account) == ROOM * CENT
    with engine.connect() as db:
        admitted = set(db.execute(select(REQUESTS.c.request_id).where(REQUESTS.c.asking.is_not(None))).scalars())
        costs = list(db.execute(select(ATTEMPTS.c.cost_nano)).scalars())
    completed = [one for one, answer in answers.items() if answer["outcome"] == "completed"]
    assert len(completed) == costs.count(CENT)
    assert len(completed) + costs.count(None) == ROOM
    called = {call["client_request_id"] for call in simulator(pipeline, "calls?since=0")}
    assert not called & {attempt_id(one, 1) for one in refused}
    assert not admitted & refused.keys()
    assert deadlocks(engine) == 0
    engine.dispose()
