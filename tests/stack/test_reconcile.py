"""`millstream reconcile` on a stack of its own: it holds on what the pipeline did, and names whatever is broken after it."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from cli.exchange import Exchange
from cli.reconcile.gather import reconcile
from cli.running import Running, running
from config import ledger
from config.database import open_database, reading
from core.reconcile import Line
from sinks.writer import connect
from tests.conftest import QUICK
from tests.stack.asking import ask, eventually, told

ROOT = Path(__file__).parent.parent.parent
FACTS = "llm.usage.v1 = rows of usage"
ROLLUP = "table usage = usage_by_minute"


@pytest.fixture(scope="module")
def proved() -> Iterator[Running]:
    """A pipeline after answered, failed, unpriced, refused, repeated, unreadable and cut-off requests."""
    with running(environment=QUICK) as run:
        again = told("Said twice.")
        requests = [
            *(told(f"Number {n}.", model) for n in range(5) for model in ("openai/gpt-5-mini", "google/gemini-2.5-flash")),
            told("Cached.", "anthropic/claude-haiku-4-5", {"usage": {"input": 10, "cached": 90, "output": 3}}),
            told("Tried again.", sim={"status": 503, "times": 1, "key": str(uuid.uuid4())}),
            told("Never.", sim={"status": 500}),
            told("Cut.", sim={"fault": "reset"}),
            told("No usage.", sim={"missing_usage": True}),
            told("Unpriced.", "openai/gpt-unpriced"),
            told("Unknown.", "openai/gtp-5"),
            told("Bad id.", request_id="no-uuid"),
            told("Echo.", "echo/echo"),
            told("Late.", deadline="2020-01-01T00:00:00Z"),
            again,
        ]  # fmt: skip
        assert len(ask(run, requests)) == len(requests)
        exchange = Exchange(run.settings)
        exchange.send(again)
        exchange.send({**again, "user": "another body"})
        for key in (str(uuid.uuid4()).encode(), b"\xff", None):
            exchange.send_bytes(key, b"no request", [])
        exchange.flush()
        exchange.close()
        assert eventually(lambda: through(run))
        yield run


def through(run: Running) -> bool:
    """Whether everything that was sent is acknowledged by every stage and the sink."""
    marks, _ = reconcile(run.settings, None, run.stack.simulator_url)
    return not marks.under_way and all(
        not mark.not_yet(mark.handled) and not mark.not_yet(mark.stored) for mark in marks.marks.values()
    )


def broken(run: Running) -> dict[str, Line]:
    """The lines that do not hold, by name."""
    _, lines = reconcile(run.settings, None, run.stack.simulator_url)
    return {line.name: line for line in lines if line.status == "BROKEN"}


def command(run: Running, sql: str) -> None:
    """Change ClickHouse behind the sink's back."""
    with connect(run.settings) as client:
        client.command(sql, settings={"mutations_sync": 1})


def priced_calls(run: Running) -> list[tuple[str, str, int]]:
    """Attempt id, request id and cost of three priced calls."""
    with connect(run.settings) as client:
        sql = "SELECT attempt_id, request_id, cost_nano_usd FROM usage WHERE cost_nano_usd > 0 ORDER BY attempt_id LIMIT 3"
        return [tuple(row) for row in client.query(sql).result_rows]


def test_it_holds_after_every_kind_of_request(proved: Running) -> None:
    """Every line is compared and holds; the figures are those of the requests that were sent."""
    _, lines = reconcile(proved.settings, None, proved.stack.simulator_url)
    assert {line.name: (line.status, line.differences) for line in lines} == {
        line.name: ("holds", ()) for line in lines
    }
    by_name = {line.name: line for line in lines}
    assert by_name["request topic = answers + dead letters"].left.figures == {"requests": 24}
    calls = by_name["calls at the provider = usage events"]
    assert calls.left.figures == calls.right.figures and calls.left.figures["calls"] >= 20
    money = by_name["tokens and cost at the provider = usage events"]
    assert money.left.figures["cost_nano_usd"] > 0
    assert money.left.figures["tokens_cache_read"] == 90
    assert by_name[FACTS].left.figures["cost_nano_usd"] == money.left.figures["cost_nano_usd"]


def test_the_command_prints_it_and_exits_0(proved: Running) -> None:
    """As JSON with the watermark and as a table; `--since` says what it leaves out; without a simulator it says so."""
    done = millstream(proved, "reconcile", "--json", "--simulator", str(proved.stack.simulator_url))
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["status"] == "holds" and set(found["watermark"]["topics"]) >= {"llm.usage.v1", "llm.requests.v1"}
    just_now = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    done = millstream(proved, "reconcile", "--since", just_now)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no simulator here" in done.stdout and "rows from before the time compared" in done.stdout
    assert "answers to requests from before the part of the log" in " ".join(done.stdout.split())


def millstream(run: Running, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command on the pipeline."""
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments], env={**run.environment, "COLUMNS": "160", "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=60, cwd=run.stack.data_dir, check=False,
    )  # fmt: skip


def test_it_works_while_traffic_runs(proved: Running) -> None:
    """With requests under way and facts on their way, nothing is taken for lost."""
    exchange = Exchange(proved.settings)
    requests = [told(f"Slow {n}.", sim={"latency_ms": 20 * n}) for n in range(60)]
    for request in requests:
        exchange.send(request)
    exchange.flush()
    seen = 0
    for _ in range(3):
        marks, lines = reconcile(proved.settings, None, proved.stack.simulator_url)
        seen += len(marks.under_way)
        assert {line.name: line.differences for line in lines if line.status == "BROKEN"} == {}
    assert len(exchange.answers([request["request_id"] for request in requests], 20)) == 60
    exchange.close()
    assert seen
    assert eventually(lambda: through(proved))


def test_money_that_moved_in_the_ledger_is_named(proved: Running) -> None:
    """An account that spent more than its calls, and an answer that the ledger has lost, are each found."""
    (_, request_id, _), *_ = priced_calls(proved)
    engine = open_database(proved.settings.database_url)
    with engine.begin() as db:
        answer = db.execute(text("SELECT answer FROM requests WHERE request_id = :i"), {"i": request_id}).scalar_one()
        db.execute(text("UPDATE requests SET answer = NULL WHERE request_id = :i"), {"i": request_id})
        db.execute(text("UPDATE accounts SET spent_nano = spent_nano + 1"))
    lines = broken(proved)
    assert set(lines) == {"answers = answers in the ledger", "spent in accounts = settled calls and adjustments"}
    assert lines["answers = answers in the ledger"].differences[0].id == request_id
    with engine.begin() as db:
        db.execute(text("UPDATE requests SET answer = :a WHERE request_id = :i"), {"i": request_id, "a": answer})
        db.execute(text("UPDATE accounts SET spent_nano = spent_nano - 1"))
    engine.dispose()
    assert broken(proved) == {}


def spent(run: Running) -> int:
    """What all accounts of the ledger have spent, in nano-USD."""
    engine = open_database(run.settings.database_url)
    with reading(engine) as db:
        found = ledger.totals(db).spent_nano
    engine.dispose()
    return found


def costs(run: Running, model: str) -> list[tuple[int, int | None, str]]:
    """Input tokens, cost and cost status of every call of a model, as the views have them."""
    with connect(run.settings) as client:
        sql = "SELECT input_tokens, cost_nano_usd, cost_status FROM provider_calls WHERE model = {m:String} ORDER BY attempt_id"
        return [tuple(row) for row in client.query(sql, {"m": model}).result_rows]


def test_another_price_is_an_adjustment_that_counts_once(proved: Running) -> None:
    """Repricing shows and publishes the differences, moves facts, rollups and ledger by them, and again changes nothing."""
    model, one_usd = (
        "openai/gpt-unpriced",
        ["--since", "1h", "--model", "openai/gpt-unpriced", "--price", "input=1,output=0"],
    )
    ((tokens, before, _),) = costs(proved, "gpt-unpriced")
    money = spent(proved)
    assert before is None
    dry = millstream(proved, "reprice", *one_usd, "--dry-run")
    assert (dry.returncode, "Would change" in dry.stdout, model in dry.stdout) == (0, True, True), dry.stderr
    assert costs(proved, "gpt-unpriced") == [(tokens, None, "unpriced")]
    assert millstream(proved, "reprice", *one_usd).returncode == 0
    assert eventually(lambda: through(proved))
    assert costs(proved, "gpt-unpriced") == [(tokens, 1_000 * tokens, "priced")]
    assert spent(proved) == money + 1_000 * tokens
    again = millstream(proved, "reprice", *one_usd)
    assert "Nothing to adjust" in again.stdout
    assert millstream(proved, "reprice", *one_usd[:-1], "input=0.5,output=0").returncode == 0
    assert millstream(proved, "reprice", *one_usd).returncode == 0
    assert millstream(proved, "reprice", *one_usd[:-1], "input=0,output=0").returncode == 0
    assert eventually(lambda: through(proved))
    assert costs(proved, "gpt-unpriced") == [(tokens, 0, "priced")]
    assert spent(proved) == money
    today = millstream(proved, "reprice", "--since", "1h", "--from-today")
    assert (today.returncode, "Nothing to adjust" in today.stdout) == (0, True), today.stdout + today.stderr
    _, lines = reconcile(proved.settings, None, proved.stack.simulator_url)
    assert {line.name: line.differences for line in lines if line.status != "holds"} == {}
    by_name = {line.name: line for line in lines}
    assert by_name["price adjustments = settled in the ledger"].left.figures == {"adjustments": 4, "cost_nano_usd": 0}


def test_what_is_broken_in_clickhouse_is_named(proved: Running) -> None:
    """A fact deleted, one doubled, a cost changed and a rollup row dropped: each is found, and the command exits with 1.

    The last test of this file, since it breaks what the others stand on.
    """
    (gone, *_), (twice, *_), (dearer, _, cost) = priced_calls(proved)
    command(proved, f"ALTER TABLE usage DELETE WHERE attempt_id = '{gone}'")
    command(
        proved, f"INSERT INTO usage SELECT * FROM usage WHERE attempt_id = '{twice}' SETTINGS insert_deduplicate = 0"
    )
    command(proved, f"ALTER TABLE usage UPDATE cost_nano_usd = cost_nano_usd + 1 WHERE attempt_id = '{dearer}'")
    command(proved, "ALTER TABLE usage_by_hour DELETE WHERE model = 'gpt-unpriced'")
    lines = broken(proved)
    assert {d.id: d.what.split(";")[0] for d in lines[FACTS].differences} == {
        gone: "is not in table usage",
        twice: "rows 1 in llm.usage.v1 topic, 2 in table usage",
        dearer: f"cost_nano_usd {cost:,} in llm.usage.v1 topic, {cost + 1:,} in table usage",
    }
    assert lines[FACTS].differing == 3
    assert set(lines) == {FACTS, ROLLUP, "table usage = usage_by_hour", "table usage = usage_by_day"}
    named = {name: "gpt-unpriced" in str(line.differences) for name, line in lines.items()}
    assert named == {name: name == "table usage = usage_by_hour" for name in lines}
    done = millstream(proved, "reconcile")
    assert done.returncode == 1
    assert all(identity in done.stdout for identity in (gone, twice, dearer, "gpt-unpriced"))
