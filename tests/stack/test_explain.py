"""`millstream explain` on a running pipeline: what it tells is what happened, from ClickHouse and from the ledger alone."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cli import kafka
from cli.exchange import Exchange
from cli.explain.gather import gather
from cli.explain.known import Known
from cli.explain.story import Story, story_of
from cli.running import Running, running
from config.database import open_database
from config.registry import apply
from config.settings import Settings
from core.registry import Route, Target
from core.topics import Topic
from sinks.tables import migrate_clickhouse
from tests.stack.asking import ask_one, eventually, simulator, told

ROOT = Path(__file__).parent.parent.parent
REPLIES = Topic("replies.orders", "LlmResponse", 86_400_000)
#: A route a task, each with models of its own: what one test makes fail, a circuit breaker keeps another from.
MODELS = ("google/gemini-2.5-flash", "openai/gpt-5-mini")
SLOW = ("google/gemini-2.5-pro", "openai/gpt-5")


@pytest.fixture(scope="module")
def routed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A pipeline whose workers have read the routes of the tasks `two` and `slow`."""
    settings = {"MILLSTREAM_REPLY_TOPICS": '["replies.*"]', "MILLSTREAM_BACKOFF_BASE_SECONDS": "0.05",
                "MILLSTREAM_MAX_ATTEMPTS": "2", "MILLSTREAM_REGISTRY_REFRESH_SECONDS": "0.5"}  # fmt: skip
    with running(tmp_path_factory.mktemp("explain"), environment=settings) as run:
        kafka.create_topics(run.settings, (REPLIES,))
        engine = open_database(run.settings.database_url)
        routes = {
            task: Route(task, tuple(map(Target, models)), task=task)
            for task, models in (("two", MODELS), ("slow", SLOW))
        }
        routes["two"] = replace(routes["two"], cache_seconds=600)
        with engine.begin() as db:
            apply(db, lambda now: replace(now, routes=routes), run.settings, "test", 1)
        engine.dispose()
        assert eventually(lambda: ask_one(run, told(model=None, task="two"))["route"] == "two")
        yield run


@pytest.fixture(scope="module")
def empty(routed: Running) -> Settings:
    """The pipeline's settings with a ClickHouse database that knows nothing, so that only the ledger can tell."""
    settings: Settings = routed.settings.model_copy(update={"clickhouse_database": f"explain_{uuid.uuid4().hex}"})
    migrate_clickhouse(settings)
    return settings


def explained(settings: Settings, request_id: str, bodies: bool = False) -> tuple[Known, Story]:
    """What is known of a request now, and its story."""
    known = gather(settings, request_id, bodies, time.time_ns() // 1_000)
    return known, story_of(known)


def stored(run: Running, answer: Any) -> tuple[Known, Story]:
    """The same, once ClickHouse has the answer and all calls, and meter has settled them."""

    def through() -> Any:
        known, story = explained(run.settings, answer["request_id"], bodies=True)
        return not story.notes and not story.open and known.facts.bodies and (known, story)

    found = eventually(through)
    assert found, explained(run.settings, answer["request_id"], bodies=True)
    return found


def millstream(run: Running, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run the command on the pipeline."""
    return subprocess.run(
        [sys.executable, "-m", "cli.main", "explain", *arguments], env={**run.environment, **changes},
        capture_output=True, text=True, timeout=60, cwd=ROOT, check=False,
    )  # fmt: skip


def kinds(story: Story) -> list[str]:
    """The kinds of a story's events, without those whose place depends on when the sink ran."""
    return [moment.kind for moment in story.moments if moment.kind not in ("stored", "alert")]


@pytest.fixture(scope="module")
def fallen_back(routed: Running) -> Any:
    """The answer to a request whose first model failed twice."""
    simulator(routed, "faults", {"provider": "google", "status": 503}, "POST")
    try:
        return ask_one(routed, told("Fall.", model=None, task="two", user="ana", plan="pro", reply_topic=REPLIES.name))
    finally:
        simulator(routed, "faults", method="DELETE")


STEPS = ["created", "admitted", "kept", "kept", "call", "failed", "call", "failed", "fallback", "call", "succeeded",
         "completed", "copied"]  # fmt: skip


def test_a_fallback_is_told_step_by_step(routed: Running, fallen_back: Any) -> None:
    """Every call, the failures, the change of model, the answer and its copy stand in order, and the costs add up."""
    known, story = stored(routed, fallen_back)
    assert (story.state, kinds(story)) == ("completed", STEPS)
    texts = {moment.kind: moment.text for moment in story.moments}
    assert texts["fallback"] == f"from {MODELS[0]} to {MODELS[1]}"
    assert "provider_unavailable (HTTP 503)" in texts["failed"] and "by route two" in texts["admitted"]
    assert texts["copied"].startswith("to replies.orders") and "stored" in texts
    assert known.cost == fallen_back["cost_nano_usd"] == sum(row["cost_nano_usd"] for row in known.calls) > 0
    moments = [moment.at for moment in story.moments]
    assert moments == sorted(moments)


def test_the_ledger_alone_tells_the_same(routed: Running, empty: Settings, fallen_back: Any) -> None:
    """Where ClickHouse has nothing yet, the events that the ledger keeps give the same story, and it says so."""
    _, story = stored(routed, fallen_back)
    known, alone = explained(empty, fallen_back["request_id"])
    assert list(alone.moments) == [m for m in story.moments if m.kind not in ("stored", "alert", "created")]
    assert (known.cost, alone.costs) == (fallen_back["cost_nano_usd"], story.costs)
    assert any("answer yet" in note for note in alone.notes) and any("call 1, 2, 3 yet" in note for note in alone.notes)


def test_an_answer_of_the_response_cache_is_told(routed: Running, empty: Settings, fallen_back: Any) -> None:
    """An equal request is told as one without a call, by ClickHouse and by the ledger alone."""
    answer = ask_one(routed, told("Fall.", model=None, task="two", user="bo"))
    known, story = stored(routed, answer)
    assert kinds(story) == ["created", "admitted", "kept", "kept", "cached", "completed"]
    assert (known.cost, known.calls, answer["cached_from"]) == (0, (), fallen_back["request_id"])
    assert [moment for moment in story.moments if moment.kind not in ("created", "stored")] == list(
        explained(empty, answer["request_id"])[1].moments
    )


def test_what_is_printed_is_for_people_and_for_machines(routed: Running, fallen_back: Any) -> None:
    """Piped text is plain and fits 100 columns, JSON has every event; bodies come only when they are asked for."""
    stored(routed, fallen_back)
    request_id, answer = fallen_back["request_id"], fallen_back["output"][0]["text"]
    shown = millstream(routed, request_id)
    assert shown.returncode == 0, shown.stderr
    assert max(map(len, shown.stdout.splitlines())) <= 100
    assert "\x1b" not in shown.stdout and answer not in shown.stdout and "tenant acme, user ana" in shown.stdout
    found = json.loads(millstream(routed, request_id, "--json", "--bodies").stdout)
    assert [event["kind"] for event in found["events"] if event["kind"] not in ("stored", "alert")] == STEPS
    assert (found["cost_nano_usd"], len(found["calls"])) == (fallen_back["cost_nano_usd"], 3)
    assert {row["kind"] for row in found["bodies"]} == {"request", "response"}
    assert answer in json.loads(found["bodies"][1]["body"])[0]["text"]


def test_a_refusal_names_every_model_and_why(routed: Running) -> None:
    """A request that no model may serve has no call; each model considered stands there as dropped, with its reason."""
    answer = ask_one(routed, told(model=None, task="two", max_cost_nano_usd=1))
    known, story = stored(routed, answer)
    assert (story.state, kinds(story)) == ("refused", ["created", "dropped", "dropped", "refused"])
    dropped = [moment.text for moment in story.moments if moment.kind == "dropped"]
    assert [text.partition(":")[0] for text in dropped] == list(MODELS) and all("may cost" in text for text in dropped)
    assert any(moment.kind == "refused" and "policy_no_candidate" in moment.text for moment in story.moments)
    assert (known.cost, known.calls) == (0, ())


def test_an_expired_request_is_told_as_such(routed: Running) -> None:
    """A deadline that has passed ends the story with its code, without a call."""
    request = told(model=None, task="two")
    answer = ask_one(routed, {**request, "deadline": request["created_at"] + 1})
    known, story = stored(routed, answer)
    assert (story.state, kinds(story)[0], kinds(story)[-1], known.calls) == ("expired", "created", "expired", ())
    assert any("pipeline_deadline_exceeded" in moment.text for moment in story.moments)


def test_a_request_under_way_is_told_by_the_ledger(routed: Running, empty: Settings) -> None:
    """While a slow model answers, the plan, the open call with its worker and the reserved money are there to see."""
    request = told(sim={"latency_ms": 15_000}, model=None, task="slow")
    exchange = Exchange(routed.settings)
    exchange.send(request)
    exchange.flush()
    called = eventually(lambda: "call" in kinds(found := explained(empty, request["request_id"])[1]) and found)
    assert called and (called.state, kinds(called)) == ("under way", ["admitted", "kept", "kept", "call"])
    assert SLOW[0] in called.open[0] and "is alive" in called.open[0] and "reserved in account acme" in called.open[1]
    assert any("times count from its admission" in note for note in called.notes)
    assert exchange.answers([request["request_id"]], 90)
    exchange.close()


def test_what_nobody_knows_or_can_be_asked_is_said(routed: Running, fallen_back: Any) -> None:
    """An unknown id gives 1 and what to check; a ClickHouse out of reach leaves the ledger's word; with neither it is 2."""
    unknown = str(uuid.uuid4())
    done = millstream(routed, unknown)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert unknown in done.stderr and "check" in done.stderr
    away = {"MILLSTREAM_CLICKHOUSE_URL": "http://me:hunter2@127.0.0.1:9"}
    told_all_the_same = millstream(routed, fallen_back["request_id"], **away)
    assert told_all_the_same.returncode == 0, told_all_the_same.stderr
    assert "127.0.0.1:9" in told_all_the_same.stdout and "fallback" in told_all_the_same.stdout
    nobody = millstream(routed, unknown, **away)
    assert (nobody.returncode, len(nobody.stderr.splitlines())) == (2, 1)
    assert "hunter2" not in told_all_the_same.stdout + nobody.stderr
