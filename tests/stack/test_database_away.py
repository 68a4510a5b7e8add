"""Two providers failing while the database of the registry and the ledger is away: what waits, and what is answered afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from cli.exchange import Exchange
from cli.reconcile.gather import reconcile
from cli.running import Running, running
from config.database import open_database
from config.registry import apply
from core.registry import Route, Target
from core.topics import RESPONSES
from local.postgres import PostgresServer
from schemas.codec import Codec
from tests.stack.asking import all_usages, ask_one, events, eventually, simulator, told, usages_of

CODEC = Codec()
MODELS = ("google/gemini-2.5-flash", "openai/gpt-5-mini", "anthropic/claude-haiku-4-5")
ROUTE = Route("left", tuple(map(Target, MODELS)), task="left")


@pytest.fixture(scope="module")
def pipeline(database: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A pipeline with that database, and a route to three providers."""
    settings = {
        "MILLSTREAM_DATABASE_URL": database.url, "MILLSTREAM_BACKOFF_BASE_SECONDS": "0.05",
        "MILLSTREAM_MAX_ATTEMPTS": "2", "MILLSTREAM_REGISTRY_REFRESH_SECONDS": "0.5",
    }  # fmt: skip
    with running(tmp_path_factory.mktemp("away"), environment=settings) as run:
        engine = open_database(run.settings.database_url)
        with engine.begin() as db:
            apply(db, lambda now: replace(now, routes={"left": ROUTE}), run.settings, "test", 1)
        engine.dispose()
        assert eventually(lambda: ask_one(run, asked())["route"] == "left")
        yield run


def asked(**sim: Any) -> Any:
    """A request that leaves the model to the route."""
    return {**told(sim=sim or None, task="left"), "model": None}


def test_what_is_left_answers_everything_once_the_database_is_back(pipeline: Running, database: PostgresServer) -> None:
    """Requests from before, while and after it is away wait and get one answer each from the third provider; no worker ends."""
    pids = {name: child.pid for name, child in pipeline.workers.items()}
    exchange = Exchange(pipeline.settings)
    for provider in ("google", "openai"):
        simulator(pipeline, "faults", {"provider": provider, "status": 503}, "POST")
    before = [asked(latency_ms=300) for _ in range(30)]
    for request in before:
        exchange.send(request)
    exchange.flush()
    eventually(lambda: len(all_usages(pipeline, CODEC)) > 5)
    database.stop()
    during = [asked() for _ in range(30)]
    for request in during:
        exchange.send(request)
    exchange.flush()
    early = exchange.answers([request["request_id"] for request in (*before, *during)], 5)
    assert early.keys().isdisjoint(request["request_id"] for request in during), "none is admitted without the ledger"
    database.start()
    after = [asked() for _ in range(10)]
    for request in after:
        exchange.send(request)
    exchange.flush()
    ids = [request["request_id"] for request in (*before, *during, *after)]
    answers = early | exchange.answers(set(ids) - early.keys(), 90)
    exchange.close()
    simulator(pipeline, "faults", method="DELETE")
    assert set(answers) == set(ids)
    assert {(answer["outcome"], answer["provider"]) for answer in answers.values()} == {("completed", "anthropic")}
    published = events(pipeline, RESPONSES)
    assert {len({event_id for event_id, _ in published[request_id]}) for request_id in ids} == {1}
    calls = sum(answer["attempts"] for answer in answers.values())
    eventually(lambda: len(usages_of(pipeline, CODEC, ids)) == calls)
    usages = all_usages(pipeline, CODEC)
    for request_id in ids:
        assert [usage["attempt"] for usage in usages[request_id]] == list(range(1, answers[request_id]["attempts"] + 1))
    assert {name: child.pid for name, child in pipeline.workers.items() if child.running} == pids


def test_every_account_agrees_afterwards(pipeline: Running) -> None:
    """Topics, ledger, ClickHouse and the simulator's own account tell the same of all these calls."""

    def through() -> Any:
        proof = reconcile(pipeline.settings, None, pipeline.stack.simulator_url)
        behind = sum(mark.not_yet(mark.handled) + mark.not_yet(mark.stored) for mark in proof.marks.marks.values())
        return not proof.marks.under_way and not behind and proof

    assert {line.name: line.differences for line in eventually(through, 60).lines if line.status == "BROKEN"} == {}
