"""The database of the ledger and the registry is away: with a spare ledger requests are answered all the same, unchecked, and accounted for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from cli.exchange import Exchange
from cli.reconcile.gather import reconcile
from cli.running import WORKERS, Running, running
from config import ledger, limits
from config.database import open_database, reading
from config.limit_uses import uses
from config.registry import apply
from core.attempts import FIRST_UNCHECKED
from core.limits import Limit
from core.registry import Route, Target
from core.topics import RESPONSES
from local.postgres import PostgresServer
from schemas.codec import Codec, Event
from sinks.query import Store
from tests.conftest import QUICK
from tests.stack.asking import all_usages, ask_one, events, eventually, simulator, told

CODEC = Codec()
#: Two workers with every lane, of which one dies: none can start while the database is away.
TWICE = WORKERS | {"complete-2": WORKERS["complete"]}
MODELS = ("google/gemini-2.5-flash", "openai/gpt-5-mini", "anthropic/claude-haiku-4-5")
ROUTE = Route("left", tuple(map(Target, MODELS)), task="left")
#: The tenant may make so many requests a month, and more than that come.
MOST = 20


@pytest.fixture(scope="module")
def pipeline(database: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A pipeline with that database, a spare ledger on SQLite, a route to three providers and a limit of requests."""
    folder = tmp_path_factory.mktemp("spare")
    settings = {
        **QUICK, "MILLSTREAM_DATABASE_URL": database.url, "MILLSTREAM_SPARE_DATABASE_URL": f"sqlite:///{folder}/spare.db",
        "MILLSTREAM_SPARE_AFTER_SECONDS": "2", "MILLSTREAM_REGISTRY_REFRESH_SECONDS": "0.5",
        "MILLSTREAM_MAX_ATTEMPTS": "2", "MILLSTREAM_HEALTH_CHECK_SECONDS": "3600",
    }  # fmt: skip
    with running(folder, workers=TWICE, environment=settings) as run:
        engine = open_database(run.settings.database_url)
        with engine.begin() as db:
            apply(db, lambda now: replace(now, routes={"left": ROUTE}), run.settings, "test", 1)
            limits.change(db, limits.Edit([Limit("/acme", "requests", "month", MOST)]), "test", 1)
        engine.dispose()
        assert eventually(lambda: ask_one(run, asked())["route"] == "left")
        yield run


def asked(**sim: Any) -> Any:
    """A request that leaves the model to the route."""
    return {**told(sim=sim or None, task="left"), "model": None}


def test_what_is_left_answers_while_the_database_is_away(pipeline: Running, database: PostgresServer) -> None:
    """With two providers failing, a worker killed in mid-call and more requests than a limit allows, each has its one answer, and says so."""
    for provider in ("google", "openai"):
        simulator(pipeline, "faults", {"provider": provider, "status": 503}, "POST")
    database.stop()
    exchange = Exchange(pipeline.settings)
    # The first of them finds the database away.
    slow = [asked(latency_ms=4_000) for _ in range(MOST)]
    for request in slow:
        exchange.send(request)
    exchange.flush()
    eventually(lambda: simulator(pipeline, "ledger")["overall"]["in_flight"] >= MOST // 2, 60)
    pipeline.workers["complete"].kill()
    quick = [asked() for _ in range(MOST)]
    for request in quick:
        exchange.send(request)
    exchange.flush()
    ids = [request["request_id"] for request in (*slow, *quick)]
    answers = exchange.answers(ids, 120)
    assert set(answers) == set(ids)
    assert {(a["outcome"], a["provider"], a["unchecked"]) for a in answers.values()} == {
        ("completed", "anthropic", True)
    }
    usages = all_usages(pipeline, CODEC)
    cut_off = [usage for request_id in ids for usage in usages[request_id] if usage["status"] == "outcome_unknown"]
    assert cut_off, "the worker that was killed had calls under way"

    # Sent again it gets the answer that it had, from the spare ledger.
    assert answer_again(exchange, quick[0], answers) == answers[quick[0]["request_id"]]
    database.start()
    simulator(pipeline, "faults", method="DELETE")
    eventually(lambda: not yet_to_carry(pipeline, ids), 60)
    assert answer_again(exchange, quick[1], answers) == answers[quick[1]["request_id"]]
    exchange.close()
    published, usages = events(pipeline, RESPONSES), all_usages(pipeline, CODEC)
    for request_id in ids:
        assert len({event_id for event_id, _ in published[request_id]}) == 1
        numbers = range(FIRST_UNCHECKED, FIRST_UNCHECKED + answers[request_id]["attempts"])
        assert [(usage["attempt"], usage["unchecked"]) for usage in usages[request_id]] == [
            (number, True) for number in numbers
        ]


def answer_again(exchange: Exchange, request: Any, answers: dict[str, Event]) -> Event:
    """What comes for a request that is sent again."""
    exchange.send(request)
    exchange.flush()
    return exchange.answers([request["request_id"]], 90)[request["request_id"]]


def yet_to_carry(run: Running, ids: list[str]) -> list[str]:
    """Those of these requests that the ledger does not have."""
    engine = open_database(run.settings.database_url)
    with reading(engine) as db:
        known = ledger.known(db, ids)
    engine.dispose()
    return [one for one, there in zip(ids, known, strict=True) if not there]


def test_the_ledger_counts_it_afterwards(pipeline: Running) -> None:
    """The limit that was exceeded is, the next request is refused, the rows in ClickHouse say which requests were unchecked."""
    engine = open_database(pipeline.settings.database_url)

    def used() -> int:
        with reading(engine) as db:
            [use] = uses(db, time.time_ns() // 1_000, "/acme")
        assert use.level is not None
        return use.level.used

    before = eventually(lambda: used() >= 2 * MOST and used(), 60)
    refused = ask_one(pipeline, asked())
    engine.dispose()
    assert before > MOST
    assert (refused["outcome"], refused["error"]["code"]) == ("refused", "policy_quota_exceeded")
    assert refused["unchecked"] is False
    store = Store(pipeline.settings)
    counted = "SELECT countIf(unchecked) AS found FROM responses"
    assert eventually(lambda: store.rows(counted)[0]["found"] == 2 * MOST, 60)
    odd = store.rows(f"SELECT count() AS found FROM usage WHERE unchecked != (attempt >= {FIRST_UNCHECKED})")
    assert odd[0]["found"] == 0
    store.close()


def test_every_account_agrees_afterwards(pipeline: Running) -> None:
    """Topics, ledger, ClickHouse and the simulator's own account tell the same of all these calls."""

    def through() -> Any:
        proof = reconcile(pipeline.settings, None, pipeline.stack.simulator_url)
        behind = sum(mark.not_yet(mark.handled) + mark.not_yet(mark.stored) for mark in proof.marks.marks.values())
        return not proof.marks.under_way and not behind and proof

    lines = eventually(through, 60).lines
    assert {line.name: line.differences for line in lines if line.status == "BROKEN"} == {}
    [held] = (line for line in lines if line.name == "reserved in accounts = held for open requests")
    assert set(held.left.figures.values()) == {0}
