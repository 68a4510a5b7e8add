"""`millstream query`, `report` and `top` on a running pipeline."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cli.report.figures import TOKEN_CLASSES, Report
from cli.report.queries import gather
from cli.report.window import parse_since
from cli.running import Running
from cli.top.look import Lookout
from sinks.query import QueryFailed, Store, reason
from sinks.tables import migrate_clickhouse
from sinks.writer import connect
from tests.stack.asking import ask, eventually, told

ROOT = Path(__file__).parents[3]
TENANT = "shown & <sons>"
NOON = 1_800_014_400_000_000
DAY = 86_400_000_000


def millstream(run: Running, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command on the pipeline."""
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments], env={**run.environment, "COLUMNS": "80"}, input=text,
        capture_output=True, text=True, timeout=60, cwd=ROOT, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def asked(pipeline: Running) -> dict[str, Any]:
    """Four requests of one tenant: two answered, one unpriced, one that fails; returned when ClickHouse has them."""
    answers = ask(pipeline, [
        told("One.", "openai/gpt-5-mini", tenant=TENANT, user="ana", task="summary"),
        told("Two.", "anthropic/claude-haiku-4-5", tenant=TENANT, user="bo"),
        told("Three.", "openai/gpt-unpriced", tenant=TENANT, user="ana"),
        told("Four.", "openai/gpt-5-mini", {"status": 401}, tenant=TENANT, user="bo"),
    ])  # fmt: skip
    assert len(answers) == 4
    store = Store(pipeline.settings)
    for table in ("usage", "responses"):
        sql = f"SELECT count() AS n FROM {table} WHERE tenant = {{tenant:String}}"
        assert eventually(lambda sql=sql: store.rows(sql, {"tenant": TENANT})[0]["n"] == 4)
    store.close()
    return answers


def test_a_report_says_what_the_answers_said(pipeline: Running, asked: dict[str, Any]) -> None:
    """Spend, calls, failures and tokens of a report are those of the answers; the unpriced call is beside the spend."""
    done = millstream(pipeline, "report", "--tenant", TENANT, "--by", "model", "--since", "1h", "--format", "json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    total, by_name = found["total"], {group["name"]: group for group in found["groups"]}
    priced = [answer["cost_nano_usd"] for answer in asked.values() if answer["cost_nano_usd"]]
    assert (total["calls"], total["errors"], total["unpriced_calls"], total["unknown_cost_calls"]) == (4, 1, 1, 0)
    assert (total["spend_nano_usd"], len(priced)) == (sum(priced), 2)
    assert {name: group["calls"] for name, group in by_name.items()} == {
        "gpt-5-mini": 2, "claude-haiku-4-5": 1, "gpt-unpriced": 1}  # fmt: skip
    for name in TOKEN_CLASSES:
        counted = [answer["tokens"][name] for answer in asked.values() if answer["tokens"]]
        reported = [number for number in counted if number is not None]
        assert total[f"tokens_{name}"] == (sum(reported) if reported else None), name
    assert [(step["calls"], step["errors"]) for step in found["steps"] if step["calls"]] != []
    assert sum(step["calls"] for step in found["steps"]) == 4
    assert {request["request_id"] for request in found["slowest"]} == set(asked)
    assert [request["cost_nano_usd"] for request in found["costliest"]] == sorted(priced, reverse=True)
    assert found["errors"] == [{"code": "provider_auth", "calls": 1}]


def test_every_form_of_a_report_has_the_same_figures(pipeline: Running, asked: dict[str, Any]) -> None:
    """Table, CSV and page name the same groups; a tenant's name is escaped on the page and cannot reach the SQL."""
    table = millstream(pipeline, "report", "--tenant", TENANT, "--by", "user", "--since", "1h")
    assert (table.returncode, "ana" in table.stdout, max(map(len, table.stdout.splitlines())) <= 80) == (0, True, True)
    assert "Not in the spend: 1 unpriced call." in table.stdout
    lines = millstream(pipeline, "report", "--tenant", TENANT, "--by", "user", "--format", "csv").stdout
    assert {line["user"]: line["calls"] for line in csv.DictReader(io.StringIO(lines))} == {"ana": "2", "bo": "2"}
    page = millstream(pipeline, "report", "--tenant", TENANT, "--format", "html").stdout
    assert "shown &amp; &lt;sons&gt;" in page and "<sons>" not in page
    other = millstream(pipeline, "report", "--tenant", "' OR 1=1 --", "--format", "json")
    assert json.loads(other.stdout)["total"]["calls"] == 0


@pytest.fixture(scope="module")
def crafted(pipeline: Running) -> Iterator[Store]:
    """A database of our own on the pipeline's ClickHouse, with rows that only a report reads."""
    settings = pipeline.settings.model_copy(update={"clickhouse_database": f"shown_{uuid.uuid4().hex}"})
    migrate_clickhouse(settings)
    client = connect(settings)
    columns = ("attempt_id", "request_id", "tenant", "adjusts", "status", "cost_nano_usd", "cost_status", "reserved_nano_usd",
               "provider_us", "created_at", "tokens_input_uncached", "tokens_cache_read")  # fmt: skip
    rows = [
        ("a1", "r1", "acme", "", "succeeded", 1_000, "priced", 5_000, 100_000, NOON, 30, 10),
        ("a2", "r2", "acme", "", "succeeded", None, "unpriced", None, 200_000, NOON + DAY, None, None),
        ("a3", "r3", "acme", "", "outcome_unknown", None, "unknown", 7_000, None, NOON + DAY, None, None),
        ("a4", "r4", "acme", "", "succeeded", None, "unpriced", None, 300_000, NOON + DAY, None, None),
        ("c1", "r6", "acme", "", "succeeded", 900, "priced", 5_000, 200_000, NOON, None, None),
        ("x1", "r1", "acme", "a1", "succeeded", -400, "priced", None, 100_000, NOON, None, None),
        ("x2", "r2", "acme", "a2", "succeeded", 2_500, "priced", None, 200_000, NOON + DAY, None, None),
        ("b1", "r5", "globex", "", "failed", 0, "not_charged", 5_000, 50_000, NOON - 30 * DAY, None, None),
    ]  # fmt: skip
    rows = [(*row[:9], datetime.fromtimestamp(row[9] / 1e6, UTC), *row[10:]) for row in rows]
    client.insert("usage", rows, column_names=columns, column_type_names=[
        "String", "String", "String", "String", "String", "Nullable(Int64)", "String", "Nullable(Int64)", "Nullable(Int64)",
        "DateTime64(6)", "Nullable(Int64)", "Nullable(Int64)"])  # fmt: skip
    yield (store := Store(settings))
    store.close()
    client.command(f"DROP DATABASE {settings.clickhouse_database}")
    client.close()


def of(store: Store, by: str, tenant: str | None = None, limit: int = 0) -> Report:
    """A report on the crafted rows."""
    return gather(store, parse_since("7d", NOON + 2 * DAY), by, tenant, limit)


def test_an_adjustment_is_spend_and_no_call(crafted: Store) -> None:
    """A correction moves the spend of its call and its day, counts as no call, and prices a call that was unpriced."""
    found = of(crafted, "day")
    assert [(day.name, day.calls, day.spend, day.unpriced, day.unknown, day.unknown_most) for day in found.groups] == [
        ("2027-01-15", 2, 1_500, 0, 0, 0), ("2027-01-16", 3, 2_500, 1, 1, 7_000)]  # fmt: skip
    total = found.total
    assert (total.calls, total.errors, total.spend, total.unpriced, total.unknown) == (5, 1, 4_000, 1, 1)
    assert (total.p50, total.cache_share, total.tokens_in, total.tokens_out) == (200_000, 0.25, 40, None)
    assert [(request.request_id, request.cost) for request in found.costliest] == [
        ("r2", 2_500),
        ("r6", 900),
        ("r1", 600),
    ]
    assert sum(step.spend for step in found.steps) == 4_000 and sum(step.calls for step in found.steps) == 5


def test_a_report_is_of_its_window_and_its_tenant(crafted: Store) -> None:
    """What is older than the window and what is another tenant's is not in it; left-out groups are counted, days never left out."""
    assert [group.name for group in of(crafted, "tenant").groups] == ["acme"]
    assert of(crafted, "tenant", "globex").empty
    whole = gather(crafted, parse_since("90d", NOON + 2 * DAY), "tenant", None, 1)
    assert ([group.name for group in whole.groups], whole.more) == (["acme"], 1)
    days = gather(crafted, parse_since("90d", NOON + 2 * DAY), "day", None, 1)
    assert (len(days.groups), days.more) == (3, 0)


def test_query_writes_what_clickhouse_writes(pipeline: Running, asked: dict[str, Any]) -> None:
    """A table for people, JSON and CSV by short names, any other format by its own, the statement also from standard input."""
    sql = "SELECT toInt64(9007199254740993) AS big, 'ä' AS word, NULL AS nothing"
    assert "9007199254740993" in millstream(pipeline, "query", sql).stdout
    assert json.loads(millstream(pipeline, "query", sql, "--format", "json").stdout) == {
        "big": 9007199254740993, "word": "ä", "nothing": None}  # fmt: skip
    assert (
        millstream(pipeline, "query", "-", "--format", "csv", text=sql).stdout.splitlines()[0]
        == '"big","word","nothing"'
    )
    assert millstream(pipeline, "query", f"{sql} FORMAT TSV").stdout == "9007199254740993\tä\t\\N\n"
    counted = millstream(pipeline, "query", "SELECT count() FROM usage", "--format", "TSV")
    assert int(counted.stdout) >= 4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["query", "SELECT nope"], ["nope", "UNKNOWN_IDENTIFIER"]),
        (["query", "SELEC 1"], ["SYNTAX_ERROR"]),
        (["query", "SELECT * FROM nosuch"], ["nosuch", "SHOW TABLES"]),
        (["query", "TRUNCATE TABLE usage"], ["READONLY", "--write"]),
        (["query", "SELECT throwIf(number = 9) FROM numbers(10)"], ["throwIf"]),
        (["query", "SELECT 1", "--format", "Nope"], ["Nope"]),
        (["query", "SELECT 1", "--format", "a b"], ["'a b'"]),
        (["query", " "], ["no SQL"]),
        (["report", "--since", "soon"], ["--since", "'soon'"]),
        (["report", "--limit", "-1"], ["--limit -1"]),
        (["report", "--by", "planet"], ["planet", "tenant"]),
        (["top", "--json"], ["--once"]),
        (["top", "--every", "0"], ["--every 0"]),
    ],
)  # fmt: skip
def test_what_cannot_be_shown_is_said_in_one_sentence(
    pipeline: Running, arguments: list[str], words: list[str]
) -> None:
    """Exit status 2, one line, no traceback, and nothing on standard output."""
    done = millstream(pipeline, *arguments)
    assert (done.returncode, done.stdout, len(done.stderr.strip().splitlines())) == (2, "", 1), done.stderr
    assert all(word in done.stderr for word in words), done.stderr


@pytest.mark.parametrize("command", [["query", "SELECT 1"], ["report"], ["top", "--once"]])
def test_a_clickhouse_out_of_reach_is_named_without_its_password(pipeline: Running, command: list[str]) -> None:
    """One sentence with the address and the setting, and no password."""
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", *command], capture_output=True, text=True, timeout=60, cwd=ROOT, check=False,
        env={**os.environ, **pipeline.environment, "MILLSTREAM_CLICKHOUSE_URL": "http://me:hunter2@127.0.0.1:9"},
    )  # fmt: skip
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1), done.stderr
    assert "http://127.0.0.1:9" in done.stderr and "MILLSTREAM_CLICKHOUSE_URL" in done.stderr
    assert "hunter2" not in done.stderr


def test_a_refused_write_changes_nothing_and_an_allowed_one_does(crafted: Store) -> None:
    """Reading is all that is allowed unless the caller says so."""
    with pytest.raises(QueryFailed, match="READONLY"):
        list(crafted.output("CREATE TABLE mine (x Int8) ENGINE = Memory", "TSV"))
    assert list(crafted.output("CREATE TABLE mine (x Int8) ENGINE = Memory", "TSV", write=True)) == []
    assert b"".join(crafted.output("SELECT count() FROM mine", "TSV")) == b"0\n"


def test_a_complaint_of_clickhouse_becomes_a_clause() -> None:
    """The code's name stays; codes, versions, addresses and the repeated query go."""
    said = (
        "Received ClickHouse exception, code: 47, server response: Code: 47. DB::Exception: Unknown identifier `x`. "
        "In scope SELECT x\nFROM y. (UNKNOWN_IDENTIFIER) (version 26.9.2.1) (for url http://h:1)"
    )
    assert reason(said) == "Unknown identifier `x` (UNKNOWN_IDENTIFIER)"
    assert reason("boom") == "boom"


def test_top_shows_every_lane_at_once(pipeline: Running, asked: dict[str, Any]) -> None:
    """A look finds the lag of every group, what workers hold, and the last minute of calls; a caught-up pipeline has no lag."""
    pages = [f"{address}/metrics" for address in pipeline.monitoring.values()]
    lookout = Lookout(pipeline.settings, pages)
    ask(pipeline, [told("For the view.", tenant=TENANT)])
    assert eventually(lambda: all(lane.lag == 0 for lane in lookout.look().lanes))
    look = lookout.look()
    assert (look.problems, look.lanes[0].name, look.sink.name) == ([], "admit", "sink")
    lanes = {lane.name: lane for lane in look.lanes}
    assert (lanes["complete-openai"].slots, lanes["complete-openai"].in_flight) == (256, 0)
    assert lanes["admit"].oldest_seconds == 0
    assert look.minute is not None and look.freshness is not None
    assert look.minute.calls >= 1 and (lanes["complete-openai"].per_second or 0) > 0
    assert look.freshness.newest_seconds is not None and look.freshness.newest_seconds < 60
    assert (look.freshness.stored_after_p95_seconds or 0) > 0


def test_top_once_is_for_scripts_and_for_people(pipeline: Running, asked: dict[str, Any]) -> None:
    """`--once --json` is one JSON object with every lane; without `--json` it fits 80 columns."""
    found = json.loads(millstream(pipeline, "top", "--once", "--json").stdout)
    assert abs(found["at_us"] / 1e6 - time.time()) < 60
    assert {"admit", "complete-openai", "meter", "sink"} <= {lane["name"] for lane in found["lanes"]}
    assert all(lane["lag"] is not None for lane in found["lanes"])
    shown = millstream(pipeline, "top", "--once").stdout.splitlines()
    assert max(map(len, shown)) <= 80
    assert any(line.startswith("openai ") for line in shown)
