"""The views and the documentation's SQL, on facts that came through the real sink."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from core.topics import REQUESTS, RESPONSES, USAGE
from local.broker import KafkaBroker
from local.clickhouse import ClickHouseServer
from schemas.events import Costs, Tokens
from schemas.jsonform import from_json
from sinks.grants import READ_VIEWS, reader_statements, writer_statements
from tests.examples import request
from tests.stack.sink_world import World, eventually, usage

DOCUMENT = (Path(__file__).parent.parent.parent / "docs" / "analytics.md").read_text("utf-8")
BLOCKS = re.findall(r"^```sql\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
#: The views that need no facts.
ON_ROLLUPS = (
    *("weekly_ai_costs", "usage_tracking", "provider_latency", "cost_by_model", "cost_by_tenant", "top_users"),
    *("error_rate_by_task", "spend_today"),
)
INPUT = ("input_uncached", "cache_read", "cache_write_5m", "cache_write_1h", "input_audio")
OUTPUT = ("output_text", "reasoning", "output_audio")
DAY = 86_400_000_000
USD = Decimal(10) ** -9

Event = dict[str, Any]


@dataclass(frozen=True)
class Filled:
    """A store with calls, the price adjustments of some, and answers, and what they were."""

    world: World
    calls: list[Event]
    adjustments: list[Event]
    answers: list[Event]

    def cost(self, call: Event) -> int | None:
        """What a call cost in nano-USD after its adjustments."""
        found = [each["cost_nano_usd"] for each in self.adjustments if each["adjusts"] == call["attempt_id"]]
        known = [amount for amount in (call["cost_nano_usd"], *found) if amount is not None]
        return sum(known) if known else None

    def cents(self, call: Event) -> Decimal | None:
        """The same in cents."""
        cost = self.cost(call)
        return None if cost is None else cost * USD * 100

    def spent(self, key: Callable[[Event], Any]) -> dict[Any, Decimal]:
        """The known cost of calls and adjustments by a key of theirs, in USD."""
        sums: dict[Any, Decimal] = defaultdict(Decimal)
        for event in (*self.calls, *self.adjustments):
            sums[key(event)] += (event["cost_nano_usd"] or 0) * USD
        return sums

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """What a query gives."""
        return self.world.rows(sql)


def day_of(event: Event) -> date:
    """The UTC day in which an event's request was made."""
    return datetime.fromtimestamp(event["created_at"] / 1e6, UTC).date()


def tokens_of(call: Event, classes: tuple[str, ...]) -> int | None:
    """The tokens of these classes, None where no class was reported."""
    found = [call["tokens"][name] for name in classes if call["tokens"][name] is not None]
    return sum(found) if found else None


def calls_of(rng: random.Random, now: int, count: int) -> list[Event]:
    """Calls of the last weeks and of just now: retries, failures, unpriced and unreported ones among them."""
    nothing = dict.fromkeys(Tokens.__annotations__)
    found = []
    for number in range(count):
        created = now - rng.choice((0, 0, 1, 6, 7, 29, 40)) * DAY - rng.randrange(60_000_000)
        tokens = {
            "input_uncached": rng.randrange(9_000),
            "cache_read": rng.choice((None, 0, 50)),
            "reasoning": 3,
            "output_text": 7,
        }
        kind = rng.choice(("priced", "priced", "priced", "failed", "unpriced", "unknown"))
        changes: Event = {"status": "succeeded", "cost_nano_usd": rng.randrange(3 * 10**9), "cost_status": "priced"}
        if kind == "failed":
            changes = {
                "status": "failed",
                "error_code": "provider_timeout",
                "cost_nano_usd": 0,
                "cost_status": "not_charged",
            }
        elif kind != "priced":
            changes = {"cost_nano_usd": None, "cost_status": kind, "reserved_nano_usd": 4_000_000}
        found.append(usage(
            rng, user=rng.choice((None, "ana", "bo", "cy")), task=rng.choice(("extraction", "summary", None)),
            tags=rng.choice(({}, {"prospect": "p-1"}, {"prospect": "p-2", "team": "search"})),
            provider=rng.choice(("openai", "anthropic")), attempt=1 if number % 5 else 2, created_at=created,
            tokens=nothing if kind in ("failed", "unknown") else nothing | tokens,
            queue_us=rng.randrange(1, 5_000), first_token_us=rng.choice((None, rng.randrange(10**5))), **changes,
        ))  # fmt: skip
    return found


def adjustments_of(rng: random.Random, calls: list[Event]) -> list[Event]:
    """Corrections of some calls' costs, up and down, one call corrected twice, one that had no price before, and a hit of the cache."""
    priced = [call for call in calls if call["cost_nano_usd"]][:3]
    unpriced = [call for call in calls if call["cost_status"] == "unpriced"][:1]
    hit = str(uuid.UUID(int=rng.getrandbits(128)))
    nothing: Event = {"tokens": dict.fromkeys(Tokens.__annotations__), "cost_nano_usd": 0, "cost_status": "cached"}
    cached = {
        **priced[0],
        **nothing,
        "attempt_id": hit,
        "adjusts": hit,
        "attempt": 0,
        "reason": "cached",
        "saved_nano_usd": 7,
    }
    return [cached] + [
        call | {
            "attempt_id": str(uuid.UUID(int=rng.getrandbits(128))), "adjusts": call["attempt_id"], "cost_nano_usd": by,
            "tokens": dict.fromkeys(Tokens.__annotations__), "costs": dict.fromkeys(Costs.__annotations__),
        }
        for call, by in zip((priced[0], *priced, *unpriced), (1_000, -77, 5, -3_000, 123_456), strict=True)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def filled(servers: tuple[KafkaBroker, ClickHouseServer]) -> Iterator[Filled]:
    """Calls, adjustments, requests and answers that the real sink has stored."""
    world = World.make(*servers, 3)
    try:
        rng = random.Random(7)
        now = time.time_ns() // 1_000
        calls = calls_of(rng, now, 400)
        adjustments = adjustments_of(rng, calls)
        for event in (*calls, *adjustments):
            world.send("LlmUsage", USAGE.name, event, event["attempt_id"])
        answers = []
        for call in calls[:20]:
            identity = {name: call[name] for name in ("request_id", "tenant", "user", "task", "created_at")}
            world.send(
                "LlmRequest", REQUESTS.name, dict(request(**{**identity, "tenant": "acme"})), "q" + call["request_id"]
            )
            answer = from_json("LlmResponse", {
                **identity, "outcome": "completed", "attempts": 2, "finished_at": now + rng.randrange(10**6), "admitted_at": now,
                "cost_status": "priced", "cost_nano_usd": call["cost_nano_usd"], "output": [{"type": "text", "text": "Yes."}],
            })  # fmt: skip
            world.send("LlmResponse", RESPONSES.name, answer, "a" + call["request_id"])
            answers.append(answer)
        world.producer.flush()
        world.start_sink()
        eventually(lambda: world.count() == 406 and world.count("bodies") == 40)
        yield Filled(world, calls, adjustments, answers)
    finally:
        world.end()


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_documented_query_finds_rows(filled: Filled, number: int) -> None:
    """A SQL block of docs/analytics.md is taken by ClickHouse as it stands and finds something."""
    assert filled.rows(BLOCKS[number])


def test_every_view_is_documented_with_an_example() -> None:
    """Each view is asked by a SQL block of docs/analytics.md, and no statement there or in a view needs FINAL."""
    sql = "\n".join(BLOCKS)
    assert [view for view in READ_VIEWS if not re.search(rf"\bFROM {view}\b", sql)] == []
    assert "FINAL" not in sql


def test_dashboards_read_rollups(filled: Filled) -> None:
    """The views for dashboards read nothing but rollups, and no view is defined with FINAL."""
    for view in ON_ROLLUPS:
        plan = "\n".join(row[0] for row in filled.rows(f"EXPLAIN SELECT * FROM {view}"))
        assert set(re.findall(r"ReadFrom\w+ \(\w+\.(\w+)\)", plan)) <= {"latency_by_hour", "usage_by_day"}, plan
        assert "_by_" in plan
    assert (
        filled.rows("SELECT name FROM system.tables WHERE database = currentDatabase() AND as_select ILIKE '% FINAL%'")
        == []
    )


def test_the_log_views_show_every_call_with_its_cost(filled: Filled) -> None:
    """A call is one row of both log views, with its tokens, cents and dollars exact and as adjustments have left them."""
    expected = {}
    for call in filled.calls:
        cost, spent, made = filled.cost(call), tokens_of(call, INPUT), tokens_of(call, OUTPUT)
        total = None if spent is None and made is None else (spent or 0) + (made or 0)
        expected[call["attempt_id"]] = (
            call["user"] or "", call["tenant"], call["tags"].get("prospect", ""), call["task"] or "", call["provider"],
            call["model"], spent, made, total, None if cost is None else cost * USD, call["created_at"],
        )  # fmt: skip
    columns = (
        "id, user_id, workspace_id, prospect_id, action, provider, model, tokens_prompt, tokens_completion, tokens_total, "
        "cost_usd, toUnixTimestamp64Micro(created_at)"
    )
    assert {row[0]: row[1:] for row in filled.rows(f"SELECT {columns} FROM ai_usage_logs")} == expected
    logs = filled.rows(
        "SELECT user_id, provider, model, task_type, input_tokens, output_tokens, estimated_cost_usd, status, "
        "toInt64(round(latency_ms * 1000)), toUnixTimestamp64Micro(created_at) FROM ai_provider_usage_logs"
    )
    assert Counter(logs) == Counter(
        (
            call["user"] or "", call["provider"], call["model"], call["task"] or "", tokens_of(call, INPUT),
            tokens_of(call, OUTPUT), filled.cents(call), call["status"],
            call["provider_us"], call["created_at"],
        )
        for call in filled.calls
    )  # fmt: skip


def test_weeks_and_users_add_up(filled: Filled) -> None:
    """Costs by week and by user and day are the exact sums of calls and adjustments; only first calls count as requests."""
    weeks = filled.spent(lambda event: day_of(event) - timedelta(days=day_of(event).weekday()))
    assert dict(filled.rows("SELECT week, total_cost FROM weekly_ai_costs")) == weeks

    def by(event: Event) -> tuple[str, str, date]:
        return event["tenant"], event["user"] or "", day_of(event)

    requests, tokens, spent = Counter[Any](), Counter[Any](), filled.spent(by)
    for call in filled.calls:
        requests[by(call)] += call["attempt"] == 1
        tokens[by(call)] += tokens_of(call, INPUT + OUTPUT) or 0
    rows = filled.rows("SELECT workspace_id, user_id, date, requests_count, tokens_used, cost_usd FROM usage_tracking")
    assert {row[:3]: row[3:] for row in rows} == {key: (requests[key], tokens[key], spent[key]) for key in spent}


def test_the_dashboard_views_add_up(filled: Filled) -> None:
    """Costs by model and tenant, errors by task, top users, today's spend and unpriced calls are what the facts say."""
    by_model = {
        row[:3]: row[3:]
        for row in filled.rows("SELECT date, provider, model, calls, cost_usd, calls_without_cost FROM cost_by_model")
    }
    by_tenant = {
        row[:2]: row[2:] for row in filled.rows("SELECT date, tenant, requests, calls, cost_usd FROM cost_by_tenant")
    }
    errors = {
        row[:3]: row[3:]
        for row in filled.rows("SELECT date, tenant, task, calls, errors, error_rate FROM error_rate_by_task")
    }
    (today,) = filled.rows("SELECT toDate(now('UTC'))")[0]
    spend = {row[0]: row[1:] for row in filled.rows("SELECT tenant, calls, cost_usd FROM spend_today")}
    top = filled.rows("SELECT tenant, user_id, cost_usd FROM top_users")

    def counted(key: Callable[[Event], Any], of: Callable[[Event], bool] = lambda _: True) -> Counter[Any]:
        return Counter(key(call) for call in filled.calls if of(call))

    def model(event: Event) -> Any:
        return day_of(event), event["provider"], event["model"]

    def tenant(event: Event) -> Any:
        return day_of(event), event["tenant"]

    def task(event: Event) -> Any:
        return day_of(event), event["tenant"], event["task"] or ""

    calls, unknown, spent = (
        counted(model),
        counted(model, lambda call: call["cost_nano_usd"] is None),
        filled.spent(model),
    )
    assert by_model == {key: (calls[key], spent[key], unknown[key]) for key in calls}
    calls, first, spent = counted(tenant), counted(tenant, lambda call: call["attempt"] == 1), filled.spent(tenant)
    assert by_tenant == {key: (first[key], calls[key], spent[key]) for key in calls}
    assert spend == {key[1]: (calls[key], spent[key]) for key in calls if key[0] == today}
    calls, failed = counted(task), counted(task, lambda call: call["status"] != "succeeded")
    assert errors == {key: (calls[key], failed[key], failed[key] / calls[key]) for key in calls}
    recent = filled.spent(
        lambda event: (event["tenant"], event["user"] or "", today - day_of(event) < timedelta(days=30))
    )
    assert {row[:2]: row[2] for row in top} == {key[:2]: amount for key, amount in recent.items() if key[2]}
    assert [row[2] for row in top] == sorted((row[2] for row in top), reverse=True)
    rows = filled.rows("SELECT tenant, provider, model, cost_status, calls, at_most_usd FROM unpriced_usage")
    left = counted(
        lambda call: (call["tenant"], call["provider"], call["model"], call["cost_status"]),
        lambda call: filled.cost(call) is None,
    )
    assert {row[:4]: row[4:] for row in rows} == {key: (calls, calls * 4_000_000 * USD) for key, calls in left.items()}


def test_percentiles_and_errors_of_an_hour(filled: Filled) -> None:
    """An hour's times lie where the calls' times lie, adjustments count in neither, and its error rate is exact."""
    groups: dict[Any, list[Event]] = defaultdict(list)
    for call in filled.calls:
        groups[call["created_at"] // 3_600_000_000 * 3_600, call["provider"]].append(call)
    rows = filled.rows(
        "SELECT toUnixTimestamp(hour), provider, calls, error_rate, p50_ms, p95_ms, p99_ms, first_token_p95_ms, queue_p95_ms "
        "FROM provider_latency"
    )
    assert {row[:2]: row[2] for row in rows} == {key: len(group) for key, group in groups.items()}
    for hour, provider, _, rate, *quantiles, first, queued in rows:
        group = groups[hour, provider]
        assert rate == sum(call["status"] != "succeeded" for call in group) / len(group)
        for share, value in zip((0.5, 0.95, 0.99), quantiles, strict=True):
            assert_quantile([call["provider_us"] / 1000 for call in group], share, value)
        assert_quantile([us / 1000 for call in group if (us := call["first_token_us"]) is not None], 0.95, first)
        assert_quantile([call["queue_us"] / 1000 for call in group], 0.95, queued)


def assert_quantile(values: list[float], share: float, found: float | None) -> None:
    """About this share of the values is below `found`: less than two values of few, or 5% of many, away from it."""
    if not values:
        assert found is None
        return
    assert found is not None
    rank = sum(value <= found * 1.0001 for value in values)
    assert abs(rank - share * len(values)) <= max(2, 0.05 * len(values))


def test_the_slowest_requests(filled: Filled) -> None:
    """The answers of the last week, with the time from their request, in the order of that time."""
    rows = filled.rows("SELECT request_id, total_ms, cost_usd FROM slowest_requests")
    week_ago = time.time_ns() // 1_000 - 7 * DAY
    expected = {
        answer["request_id"]: (
            (answer["finished_at"] - answer["created_at"]) / 1000,
            None if answer["cost_nano_usd"] is None else answer["cost_nano_usd"] * USD,
        )
        for answer in filled.answers
        if answer["created_at"] >= week_ago
    }
    assert {row[0]: row[1:] for row in rows} == expected
    assert [row[1] for row in rows] == sorted((row[1] for row in rows), reverse=True)


def test_the_command_prints_and_says_why_it_cannot_apply(filled: Filled) -> None:
    """Without --apply the SQL of both roles is printed; a server that has no users is named with what to do instead."""
    name = filled.world.settings.clickhouse_database
    where = {"MILLSTREAM_CLICKHOUSE_URL": filled.world.clickhouse.url, "MILLSTREAM_CLICKHOUSE_DATABASE": name}

    def granted(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cli.main", "grant-reader", "--tenant", "acme", *arguments]
        return subprocess.run(command, env=os.environ | where, capture_output=True, text=True, timeout=60)

    printed = granted("--user", "ana")
    assert printed.returncode == 0, printed.stderr
    for statement in (*reader_statements(name, "acme", "ana"), *writer_statements(name)):
        assert f"{statement};\n" in printed.stdout
    refused = granted("--apply")
    assert refused.returncode == 2
    assert "0 of " in refused.stderr and "administrator" in refused.stderr


def test_what_the_cache_saved_is_told_apart_from_what_calls_cost(filled: Filled) -> None:
    """A hit shows in its own view alone, with what its answer had cost."""
    rows = filled.rows("SELECT hits, saved_usd, hits_without_cost FROM cache_savings")
    assert rows == [(1, 7 * USD, 0)]
