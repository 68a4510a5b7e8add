"""Named tasks in the admit stage itself, on a real ledger: the call that follows, what is refused, and repetitions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agents.admit import Admit, AdmitRules
from agents.ledgers import Ledgers
from agents.planning import Planner
from config.database import create_tables, open_database
from config.registry import from_environment
from config.settings import Settings
from config.tasks import Tasks
from config.transactions import Transactions
from core.outcome import Emit, Outgoing, Record
from core.registry import Route, Target
from core.topics import REQUESTS
from schemas.codec import Codec, Event
from schemas.events import LlmRequest
from tests.examples import NOON, request

CODEC = Codec()
TASK = """
name: greet
description: Greets.
route: extraction
input: {type: object, required: [who], properties: {who: {type: string}}}
prompts:
  - {name: v1, user: "Greet {{ who }}."}
"""


def task_request(task: str, values: Any, **changes: Any) -> LlmRequest:
    """A request of a task, for a model that the routes choose."""
    return request(**{"messages": [], "model": None, "task": task, "input": json.dumps(values), **changes})


@pytest.fixture
def admit(tmp_path: Path) -> Callable[..., list[Outgoing]]:
    """Deals with requests, each time as another worker with the same ledger and the tasks as they then are."""
    engine = open_database(f"sqlite:///{tmp_path}/ledger.db")
    create_tables(engine)

    def deal(*requests: LlmRequest, route: Route | None = None, **changes: Any) -> list[Outgoing]:
        settings = Settings(tasks_dir=str(tmp_path), **changes)
        registry = from_environment(settings)
        registry = registry if route is None else replace(registry, routes=(route,))

        async def nowhere(_: str) -> int | None:
            return None

        async def run() -> list[Outgoing]:
            transactions = Transactions(engine, most=10, linger=0.001)
            planner = Planner(lambda: registry, dict, settings.models, 4_096)
            stage = Admit(
                CODEC, Ledgers(transactions), lambda: Tasks.load(settings), planner, AdmitRules(settings.max_request_bytes, ()), nowhere,
                lambda: NOON,
            )  # fmt: skip
            found: list[Outgoing] = []
            for each in requests:
                value = CODEC.encode("LlmRequest", each)
                record = Record(REQUESTS.name, 0, 0, each["request_id"].encode(), value, [], NOON)
                outcome = await stage(record)
                assert isinstance(outcome, Emit)
                found += outcome.events
            await transactions.close()
            return found

        return asyncio.run(run())

    (tmp_path / "greet.yaml").write_text(TASK)
    return deal


def decoded(event: Outgoing) -> Event:
    """The event in what a stage sends on."""
    return CODEC.decode("LlmResponse" if "responses" in event.topic else "LlmCall", event.value)


def test_a_call_holds_the_messages_and_the_version(admit: Callable[..., list[Outgoing]]) -> None:
    """The route is that of the task's name in routes, facts keep the name that was asked for, and the inputs are gone."""
    [sent] = admit(task_request("greet", {"who": "{{ who }}"}))
    call = decoded(sent)
    assert (call["route"], call["provider"], call["prompt_version"]) == ("extraction", "google", "greet/v1")
    assert (call["request"]["task"], call["request"]["input"]) == ("greet", None)
    assert [part["text"] for part in call["request"]["messages"][0]["content"]] == ["Greet {{ who }}."]


def test_a_call_has_the_bound_of_its_route(admit: Callable[..., list[Outgoing]]) -> None:
    """The calls that a route allows are on the request in the call, the same when it is sent again and the route has gone."""
    asking = request(model=None, task="bounded", max_attempts=5)
    route = Route("bounded", (Target("openai/gpt-5-mini"),), task="bounded", max_attempts=2)
    sent = admit(asking, route=route)
    assert decoded(sent[0])["request"] == {**asking, "max_attempts": 2}
    assert admit(asking) == sent


def test_a_repetition_is_the_same_call_when_the_task_has_changed(
    admit: Callable[..., list[Outgoing]], tmp_path: Path
) -> None:
    """What a crash makes a worker read again gives the same bytes, though the prompt was changed or taken away in between."""
    asking = task_request("greet", {"who": "Bo"})
    first = admit(asking)
    (tmp_path / "greet.yaml").write_text(TASK.replace("Greet {{", "Salute {{").replace("v1", "v2"))
    assert admit(asking) == first
    (tmp_path / "greet.yaml").unlink()
    assert admit(asking) == first
    assert b"Greet Bo." in first[0].value


@pytest.mark.parametrize(
    ("task", "values", "settings", "words"),
    [
        ("draft_cvs", {}, {}, "draft_cv"),
        ("draft_cv", {}, {}, "input.profile is missing"),
        ("greet", {"who": 1}, {}, "input.who is 1"),
        ("extract_job_data", {"url": "https://example.com/1"}, {}, "MILLSTREAM_TASK_FETCH_URLS"),
        ("extract_job_data", {"url": "http://169.254.169.254/"}, {"task_fetch_urls": True}, "private addresses"),
        ("extract_job_data", {"url": "http://no-such-host.invalid/"}, {"task_fetch_urls": True}, "no public address"),
    ],
)
def test_a_request_that_its_task_cannot_take_is_answered_once(
    task: str, values: Any, settings: dict[str, Any], words: str, admit: Callable[..., list[Outgoing]]
) -> None:
    """The answer is `caller_invalid_request` and says what to mend; a repetition publishes the same bytes."""
    asking = task_request(task, values)
    [first] = admit(asking, **settings)
    answer = decoded(first)
    assert (answer["outcome"], answer["error"]["code"]) == ("refused", "caller_invalid_request")
    assert words in answer["error"]["message"]
    assert admit(asking, **settings) == [first]


TWO = TASK.replace("prompts:", 'prompts:\n  - {name: v0, weight: 0, user: "Hello, {{ who }}."}')


def test_a_request_gets_the_version_that_it_names(admit: Callable[..., list[Outgoing]], tmp_path: Path) -> None:
    """A version that has no share of the traffic serves who asks for it by name; nobody else gets it."""
    (tmp_path / "greet.yaml").write_text(TWO)
    sent = admit(task_request("greet", {"who": "Bo"}, prompt_version="v0"), task_request("greet", {"who": "Bo"}))
    assert [decoded(each)["prompt_version"] for each in sent] == ["greet/v0", "greet/v1"]
    assert decoded(sent[0])["request"]["messages"][0]["content"][0]["text"] == "Hello, Bo."


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "'v9'; the versions of task greet are v0, v1."),
        ({"input": None, "messages": request()["messages"]}, "'v9' and field input is not given"),
        ({"task": None, "input": None}, "'v9' and field input is not given"),
    ],
)
def test_a_version_that_cannot_be_used_is_refused(
    changes: dict[str, Any], words: str, admit: Callable[..., list[Outgoing]], tmp_path: Path
) -> None:
    """An unknown version, and one of a request whose messages no prompt makes, gets a sentence that names it."""
    (tmp_path / "greet.yaml").write_text(TWO)
    [sent] = admit({**task_request("greet", {"who": "Bo"}, prompt_version="v9"), **changes})
    answer = decoded(sent)
    assert (answer["outcome"], answer["error"]["code"]) == ("refused", "caller_invalid_request")
    assert words in answer["error"]["message"]
