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
from cli.reconcile.gather import Proof, now_us, reconcile
from cli.running import Running, running
from config import audit
from config.database import open_database, reading
from core.reconcile import Line
from sinks.writer import connect
from tests.conftest import QUICK
from tests.stack.asking import ask, eventually, told

ROOT = Path(__file__).parent.parent.parent
FACTS = "llm.usage.v1 = rows of usage"
ROLLUPS = {f"table usage = {name}" for name in ("usage_by_minute", "usage_by_hour", "usage_by_day", "latency_by_hour")}
BODIES = {f"llm.{name}.v1 = rows of bodies" for name in ("requests", "responses")}
DEADLINE = "requests past their deadline = answered"
MINUTE_US = 60_000_000


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


def proof(run: Running) -> Proof:
    """Everything held against everything."""
    return reconcile(run.settings, None, run.stack.simulator_url)


def through(run: Running) -> bool:
    """Whether everything that was sent is acknowledged by every stage and the sink."""
    marks = proof(run).marks
    return not marks.under_way and all(
        not mark.not_yet(mark.handled) and not mark.not_yet(mark.stored) for mark in marks.marks.values()
    )


def broken(run: Running) -> dict[str, Line]:
    """The lines that do not hold, by name."""
    return {line.name: line for line in proof(run).lines if line.status == "BROKEN"}


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
    lines = proof(proved).lines
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
    assert by_name[DEADLINE].left.figures == {"requests": 1}
    unknown = by_name["unknown in accounts = bounds of calls whose cost is not known"]
    assert unknown.left.figures["unknown_nano_usd"] > 0
    timed = by_name["table usage = latency_by_hour"].right.figures
    assert timed["calls"] == calls.left.figures["calls"] + 1  # the provider echo has no account
    assert timed["with_first_token_us"] == 0 < timed["with_provider_us"] <= timed["calls"] == timed["with_queue_us"]
    kept = [by_name[name].right.figures for name in sorted(BODIES)]
    assert [each["rows"] for each in kept] == [
        by_name[f"llm.{n}.v1 = rows of {n}"].right.figures["rows"] for n in ("requests", "responses")
    ]
    assert all(each["body_bytes"] > each["rows"] for each in kept)


def test_a_call_that_tests_a_provider_is_told_apart(proved: Running) -> None:
    """`providers test` makes a real call that no request stands behind: everything still holds, and a note says so."""
    done = millstream(proved, "providers", "test", "openai")
    assert done.returncode == 0, done.stdout
    lines = {line.name: line for line in proof(proved).lines}
    calls = lines["calls at the provider = usage events"]
    assert (calls.status, calls.notes) == ("holds", ("1 calls of `millstream providers test`",))
    assert broken(proved) == {}


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
        found = proof(proved)
        seen += len(found.under_way_since)
        assert {line.name: line.differences for line in found.lines if line.status == "BROKEN"} == {}
    assert len(exchange.answers([request["request_id"] for request in requests], 90)) == 60
    exchange.close()
    assert seen
    assert eventually(lambda: through(proved))


def test_bodies_that_are_not_kept_are_not_compared(proved: Running) -> None:
    """Where the setting says off, or 30 days have passed, the line says so; a text that is kept is none too many for `hash`."""
    for settings, later, status, note in (
        ({"bodies": "off"}, 0, "not compared", "MILLSTREAM_BODIES is off"),
        ({}, 31, "not compared", "bodies older than 30 days"),
        ({"bodies": "hash"}, 0, "holds", ""),
    ):
        run = proved.settings.model_copy(update=settings)
        lines = reconcile(run, None, None, clock=lambda days=later: now_us() + days * 24 * 60 * MINUTE_US).lines  # type: ignore[misc]
        found = [line for line in lines if line.name in BODIES]
        assert [(line.status, note in str(line.notes)) for line in found] == [(status, True)] * 2


def test_a_request_that_nobody_answers_in_time_is_named(proved: Running) -> None:
    """With `admit` dead, what waits is counted with its age, and what should have expired long ago is broken; alive again, all holds."""
    proved.workers["admit"].kill()
    now = now_us()
    late, soon = (
        told(text, deadline=datetime.fromtimestamp((now - minutes * MINUTE_US) / 1e6, UTC).isoformat())
        for text, minutes in (("Nobody is there.", 6), ("It may still come.", 4))
    )
    exchange = Exchange(proved.settings)
    for request in (late, soon, told("No hurry.")):
        exchange.send(request)
    exchange.flush()
    found = proof(proved)
    assert len(found.under_way_since) == 3
    assert now - MINUTE_US < found.under_way_since[0] < now_us()
    lines = {line.name: line for line in found.lines if line.status == "BROKEN"}
    assert {name: [d.id for d in line.differences] for name, line in lines.items()} == {DEADLINE: [late["request_id"]]}
    done = millstream(proved, "reconcile")
    assert done.returncode == 1
    assert "3 requests under way, the oldest since" in done.stdout
    proved.start_worker("admit", ["worker", "admit"])
    answers = exchange.answers([late["request_id"], soon["request_id"]], 90)
    exchange.close()
    assert [answer["outcome"] for answer in answers.values()] == ["expired"] * 2
    assert eventually(lambda: through(proved))
    assert broken(proved) == {}


def test_money_that_moved_in_the_ledger_is_named(proved: Running) -> None:
    """An account that spent more than its calls, and an answer that the ledger has lost, are each found."""
    (_, request_id, _), *_ = priced_calls(proved)
    engine = open_database(proved.settings.database_url)
    with engine.begin() as db:
        answer = db.execute(text("SELECT answer FROM requests WHERE request_id = :i"), {"i": request_id}).scalar_one()
        db.execute(text("UPDATE requests SET answer = NULL WHERE request_id = :i"), {"i": request_id})
        db.execute(text("UPDATE accounts SET spent_nano = spent_nano + 1, unknown_nano = unknown_nano + 1"))
    lines = broken(proved)
    assert set(lines) == {
        "answers = answers in the ledger",
        "spent in accounts = settled calls and adjustments",
        "unknown in accounts = bounds of calls whose cost is not known",
    }
    assert lines["answers = answers in the ledger"].differences[0].id == request_id
    with engine.begin() as db:
        db.execute(text("UPDATE requests SET answer = :a WHERE request_id = :i"), {"i": request_id, "a": answer})
        db.execute(text("UPDATE accounts SET spent_nano = spent_nano - 1, unknown_nano = unknown_nano - 1"))
    engine.dispose()
    assert broken(proved) == {}


def spent(run: Running) -> int:
    """What all accounts of the ledger have spent, in nano-USD."""
    engine = open_database(run.settings.database_url)
    with reading(engine) as db:
        found = audit.totals(db).spent_nano
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
    lines = proof(proved).lines
    assert {line.name: line.differences for line in lines if line.status != "holds"} == {}
    by_name = {line.name: line for line in lines}
    assert by_name["price adjustments = settled in the ledger"].left.figures == {"adjustments": 4, "cost_nano_usd": 0}


def test_what_is_broken_in_the_bodies_and_the_latencies_is_named(proved: Running) -> None:
    """A body deleted and one changed, a group of latencies dropped, one that lost its times: each is found by its name."""
    with connect(proved.settings) as client:
        sql = "SELECT ce_id FROM bodies WHERE kind = {k:String} ORDER BY ce_id LIMIT 1"
        (asked, said) = (str(client.query(sql, {"k": kind}).result_rows[0][0]) for kind in ("request", "response"))
    command(proved, f"ALTER TABLE bodies DELETE WHERE ce_id = '{asked}'")
    command(proved, f"ALTER TABLE bodies UPDATE body = 'Another.' WHERE ce_id = '{said}'")
    command(proved, "ALTER TABLE latency_by_hour DELETE WHERE provider = 'google'")
    command(
        proved,
        "ALTER TABLE latency_by_hour UPDATE provider_us = "
        "initializeAggregation('quantilesTDigestState(0.5, 0.95, 0.99)', CAST(NULL, 'Nullable(Int64)')) "
        "WHERE provider = 'anthropic'",
    )
    lines = broken(proved)
    latency = "table usage = latency_by_hour"
    assert set(lines) == {*BODIES, latency}
    first, second = (lines[name].differences for name in sorted(BODIES))
    assert [(d.id, d.what) for d in (*first, *second)] == [
        (asked, "is not in table bodies"), (said, "another body in table bodies"),
    ]  # fmt: skip
    named = {"google": "calls ", "anthropic": "with_provider_us 1 in table usage, 0 in latency_by_hour"}
    assert lines[latency].differing >= 2
    assert all(any(name in d.id and what in d.what for d in lines[latency].differences) for name, what in named.items())
    done = millstream(proved, "reconcile")
    assert done.returncode == 1
    assert asked in done.stdout and said in done.stdout
    command(proved, "TRUNCATE TABLE bodies")
    command(proved, "TRUNCATE TABLE latency_by_hour")


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
    assert set(lines) == {FACTS, *BODIES, *ROLLUPS}
    named = {
        name: "gpt-unpriced" in str(lines[name].differences) for name in ROLLUPS - {"table usage = latency_by_hour"}
    }
    assert named == {name: name == "table usage = usage_by_hour" for name in named}
    done = millstream(proved, "reconcile")
    assert done.returncode == 1
    assert all(identity in done.stdout for identity in (gone, twice, dearer, "gpt-unpriced"))
