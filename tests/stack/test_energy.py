"""Energy on a stack: what answers cost, what is called instead, what comes back, and that every account agrees afterwards."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from cli.exchange import Exchange
from cli.reconcile.gather import reconcile
from cli.running import WORKERS, Running, running
from config.database import open_database, reading
from config.energy_audit import Balance, balances
from config.registry import apply
from core.registry import Route, Target
from sinks.query import Store
from tests.conftest import QUICK
from tests.stack.asking import ask_one, eventually, simulator, told

ROOT = Path(__file__).parent.parent.parent
STRONG, CHEAP = "openai/gpt-5", "google/gemini-2.5-flash"
ROUTES = {"draft": Route("draft", (Target(STRONG), Target(CHEAP)), task="draft")}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A pipeline on which a draft of the strong model costs 5 credits, one of the cheap model 1, and all else nothing."""
    environment = {**QUICK, "MILLSTREAM_MAX_ATTEMPTS": "2", "MILLSTREAM_REGISTRY_REFRESH_SECONDS": "0.5"}
    with running(tmp_path_factory.mktemp("energy"), environment=environment) as run:
        engine = open_database(run.settings.database_url)
        with engine.begin() as db:
            apply(db, lambda now: replace(now, routes=ROUTES), run.settings, "test", 1)
        engine.dispose()
        assert eventually(lambda: ask_one(run, draft("nobody"))["route"] == "draft")
        millstream(run, "price", "set", "5", "--task", "draft", "--model", "openai/*")
        millstream(run, "price", "set", "1", "--task", "draft", "--model", "google/*")
        yield run


def draft(user: str | None, sim: dict[str, Any] | None = None) -> Any:
    return {**told("Hello.", sim=sim, task="draft", user=user), "model": None}


def millstream(run: Running, *arguments: str) -> str:
    """What `millstream energy` prints."""
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "energy", *arguments], env={**run.environment, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=60, cwd=run.stack.data_dir, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def balance(run: Running, user: str) -> Balance:
    engine = open_database(run.settings.database_url)
    with reading(engine) as db:
        [found] = balances(db, f"/acme/user:{user}", 0)
    engine.dispose()
    return found


def model_of(answer: Any) -> str | None:
    return f"{answer['provider']}/{answer['model']}" if answer["outcome"] == "completed" else None


def test_a_user_is_downgraded_and_then_out_of_credits(run: Running) -> None:
    """Seven credits are one answer of the strong model, two of the cheap one, and then a refusal; nothing else costs any."""
    millstream(run, "grant", "acme", "ana", "7")
    strong, cheap, last, none = (ask_one(run, draft("ana")) for _ in range(4))
    assert (model_of(strong), strong["downgraded_from"]) == (STRONG, None)
    for answer in (cheap, last):
        assert (model_of(answer), answer["downgraded_from"]) == (CHEAP, STRONG)
        assert "it costs 5 credits and /acme/user:ana has" in answer["decisions"][-1]["reason"]
    assert (none["outcome"], none["error"]["code"], none["attempts"]) == ("refused", "policy_energy_exhausted", 0)
    assert "/acme/user:ana has 0 left" in none["error"]["message"]
    assert ask_one(run, told("Hello.", user="ana"))["outcome"] == "completed"
    assert ask_one(run, draft("nobody"))["error"]["code"] == "policy_energy_exhausted"
    assert "0 of 7 left, 7 consumed" in millstream(run, "show", "acme", "ana")
    kinds = [each["kind"] for each in orjson.loads(millstream(run, "history", "acme", "ana", "--json"))]
    assert kinds == ["grant", *("reserve", "consume") * 3]


def test_requests_at_once_use_what_there_is_once(run: Running) -> None:
    """Of forty requests over twenty credits, those that were admitted are paid, whatever died on the way, and no others."""
    millstream(run, "grant", "acme", "cy", "20")
    requests = [draft("cy", {"latency_ms": 300}) for _ in range(40)]
    exchange = Exchange(run.settings)
    for request in requests:
        exchange.send(request)
    exchange.flush()
    eventually(lambda: simulator(run, "ledger")["overall"]["in_flight"])
    for name in ("complete", "admit"):
        run.workers[name].kill()
        run.start_worker(name, WORKERS[name][0])
    answers = exchange.answers([request["request_id"] for request in requests], 90)
    exchange.close()
    assert len(answers) == len(requests)
    prices = Counter({STRONG: 5, CHEAP: 1})
    paid = sum(prices[name] for answer in answers.values() if (name := model_of(answer)))
    found = balance(run, "cy")
    assert (found.consumed, found.left, found.reserved) == (paid, 20 - paid, 0)
    assert 0 < paid <= 20


def test_a_failed_request_gets_its_credits_back(run: Running) -> None:
    """When every model fails, nothing is consumed; when the first one fails, the price of the one that answered."""
    millstream(run, "grant", "acme", "bo", "5")
    failed = ask_one(run, draft("bo", {"status": 500}))
    assert failed["outcome"] == "failed"
    found = balance(run, "bo")
    assert (found.left, found.reserved, found.consumed) == (5, 0, 0)
    simulator(run, "faults", {"provider": "openai", "status": 503}, "POST")
    answer = ask_one(run, draft("bo"))
    simulator(run, "faults", method="DELETE")
    assert (model_of(answer), answer["downgraded_from"]) == (CHEAP, None)
    found = balance(run, "bo")
    assert (found.left, found.reserved, found.consumed) == (4, 0, 1)


def test_every_account_agrees_afterwards(run: Running) -> None:
    """The proof holds with its lines of energy, and ClickHouse knows which answers were downgraded."""

    def through() -> Any:
        proof = reconcile(run.settings, None, run.stack.simulator_url)
        behind = (mark.not_yet(mark.handled) + mark.not_yet(mark.stored) for mark in proof.marks.marks.values())
        return not proof.marks.under_way and not any(behind) and proof

    lines = eventually(through, 60).lines
    assert {line.name: line.differences for line in lines if line.status == "BROKEN"} == {}
    by_name = {line.name: line for line in lines}
    assert by_name["energy sums to zero"].left.figures == {"credits": 32}
    assert by_name["reserved energy = held for open requests"].left.figures == {"credits": 0}
    consumed = by_name["consumed energy = completed answers at their prices"]
    assert consumed.left.figures == {"credits": sum(balance(run, user).consumed for user in ("ana", "bo", "cy"))}
    store = Store(run.settings)
    rows = store.rows("SELECT count() AS n FROM responses WHERE user = 'ana' AND downgraded_from = 'openai/gpt-5'")
    store.close()
    assert rows[0]["n"] == 2
