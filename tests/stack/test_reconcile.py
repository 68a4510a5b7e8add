"""`millstream reconcile` on a stack of its own: it holds on what the pipeline did, and names whatever is broken after it."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cli.exchange import Exchange
from cli.reconcile.gather import reconcile
from cli.running import Running, running
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


def one_fact(run: Running) -> tuple[str, str, int]:
    """Attempt id, request id and cost of a priced call."""
    with connect(run.settings) as client:
        sql = "SELECT attempt_id, request_id, cost_nano_usd FROM usage WHERE cost_nano_usd > 0 ORDER BY attempt_id LIMIT 1"
        return tuple(client.query(sql).result_rows[0])  # type: ignore[return-value]


@contextmanager
def set_aside(run: Running, attempt: str) -> Iterator[None]:
    """Within it, table `aside` holds one row of usage; afterwards usage holds that row once and the rollups are as before."""
    rollups = ("usage_by_minute", "usage_by_hour", "usage_by_day")
    command(run, "CREATE TABLE aside AS usage")
    command(run, f"INSERT INTO aside SELECT * FROM usage WHERE attempt_id = '{attempt}'")
    for name in rollups:
        command(run, f"CREATE TABLE kept_{name} AS {name}")
        command(run, f"INSERT INTO kept_{name} SELECT * FROM {name}")
    yield
    command(run, f"ALTER TABLE usage DELETE WHERE attempt_id = '{attempt}'")
    command(run, "INSERT INTO usage SELECT * FROM aside SETTINGS insert_deduplicate = 0")
    command(run, "DROP TABLE aside SYNC")
    # In this order, because an insert into a rollup reaches the coarser ones through its own view.
    for name in rollups:
        command(run, f"TRUNCATE TABLE {name}")
        command(run, f"INSERT INTO {name} SELECT * FROM kept_{name} SETTINGS insert_deduplicate = 0")
        command(run, f"DROP TABLE kept_{name} SYNC")


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
    assert "without --since" in done.stdout and done.stdout.count("not compared") == 3


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


def test_a_fact_that_is_gone_is_named(proved: Running) -> None:
    """A deleted row of usage is missed by its topic and by the rollups; an insert of the same row makes it hold again."""
    attempt, _, _ = one_fact(proved)
    with set_aside(proved, attempt):
        command(proved, f"ALTER TABLE usage DELETE WHERE attempt_id = '{attempt}'")
        lines = broken(proved)
        assert [d.id for d in lines[FACTS].differences] == [attempt]
        assert "is not in table usage" in lines[FACTS].differences[0].what
        assert set(lines) == {FACTS, ROLLUP, "table usage = usage_by_hour", "table usage = usage_by_day"}
    assert broken(proved) == {}


def test_a_fact_that_stands_twice_is_named(proved: Running) -> None:
    """A row inserted a second time is found against the log, though the rollups have counted it twice as well."""
    attempt, _, _ = one_fact(proved)
    with set_aside(proved, attempt):
        command(proved, "INSERT INTO usage SELECT * FROM aside SETTINGS insert_deduplicate = 0")
        lines = broken(proved)
        assert [(d.id, d.what.split(";")[0]) for d in lines[FACTS].differences] == [
            (attempt, "rows 1 in llm.usage.v1 topic, 2 in table usage")
        ]
        assert set(lines) == {FACTS}
    assert broken(proved) == {}


def test_a_cost_that_was_changed_is_named(proved: Running) -> None:
    """One nano-USD more on one row is found, with both amounts."""
    attempt, _, cost = one_fact(proved)
    command(proved, f"ALTER TABLE usage UPDATE cost_nano_usd = cost_nano_usd + 1 WHERE attempt_id = '{attempt}'")
    lines = broken(proved)
    assert [(d.id, d.what) for d in lines[FACTS].differences] == [
        (attempt, f"cost_nano_usd {cost:,} in llm.usage.v1 topic, {cost + 1:,} in table usage")
    ]
    assert f"cost_nano_usd {cost + 1}" in str(lines[ROLLUP].differences) or lines[ROLLUP].differing == 1
    done = millstream(proved, "reconcile")
    assert done.returncode == 1 and attempt in done.stdout
    command(proved, f"ALTER TABLE usage UPDATE cost_nano_usd = cost_nano_usd - 1 WHERE attempt_id = '{attempt}'")
    assert broken(proved) == {}


def test_a_rollup_row_that_is_gone_is_named(proved: Running) -> None:
    """A group that was dropped from one rollup is found in that rollup alone."""
    command(proved, "CREATE TABLE rollup_aside AS usage_by_day")
    command(proved, "INSERT INTO rollup_aside SELECT * FROM usage_by_day WHERE model = 'gpt-unpriced'")
    command(proved, "ALTER TABLE usage_by_day DELETE WHERE model = 'gpt-unpriced'")
    lines = broken(proved)
    assert set(lines) == {"table usage = usage_by_day"}
    assert "gpt-unpriced" in lines["table usage = usage_by_day"].differences[0].id
    command(proved, "INSERT INTO usage_by_day SELECT * FROM rollup_aside")
    assert broken(proved) == {}


def test_money_that_moved_in_the_ledger_is_named(proved: Running) -> None:
    """An account that spent more than its calls, and an answer that the ledger has lost, are each found."""
    from sqlalchemy import text

    from config.database import open_database

    _, request_id, _ = one_fact(proved)
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
