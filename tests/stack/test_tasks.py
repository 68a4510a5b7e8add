"""Named tasks through the running pipeline: every shipped one on every provider, two versions of a prompt, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from cli.lines import request_of, text_of
from cli.running import Running, running
from config.settings import Settings
from config.tasks import Tasks
from schemas.codec import Codec, Event
from schemas.events import LlmRequest
from sinks.query import Store
from tests.stack.asking import all_usages, ask, ask_one, eventually

CODEC = Codec()
SHIPPED = Tasks.load(Settings())
NAMES = [task.name for task in SHIPPED]
MODELS = ("openai/gpt-5-mini", "anthropic/claude-haiku-4-5", "google/gemini-2.5-flash")
PROFILE = {"name": "Ana Ruiz", "work": [{"at": "Bakery Sol", "years": "2015-2024", "did": "Led 5 bakers."}]}
INPUTS: dict[str, dict[str, Any]] = {
    "ai_message": {"purpose": "Agree on a call.", "conversation": [{"from": "Ana", "text": "When?"}]},
    "draft_cover_letter": {"profile": PROFILE, "job": "Baker in Cologne."},
    "draft_cv": {"profile": PROFILE, "job": {"title": "Baker"}},
    "extract_job_data": {"text": "Bakery Sol seeks a baker in Cologne. {{ 7 * 7 }} {% for x in y %}"},
    "extraction": {"text": "Order 7 of May.", "fields": [{"name": "number", "type": "number"}]},
    "lead_insights": {"lead": {"company": "Bakery Sol"}, "interactions": [{"text": "Too dear."}]},
    "sentiment": {"text": "Good bread."},
    "summarise": {"text": "Bread is baked."},
}
#: A task of the deployment's own with two versions, of which the second's model is told to fail now and then.
GREET = """
name: greet
description: Greets.
input:
  type: object
  required: [who]
  properties:
    who: {type: string}
prompts:
  - name: plain
    user: 'Greet {{ who }}.'
  - name: broken
    user: 'Greet {{ who }} warmly. [[sim {"status": 400}]]'
"""


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A stack of our own, with a folder of tasks and with fetching allowed."""
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "greet.yaml").write_text(GREET)
    settings = {
        "MILLSTREAM_TASKS_DIR": str(folder),
        "MILLSTREAM_TASK_FETCH_URLS": "true",
        "MILLSTREAM_SINK_BATCH_SECONDS": "0.2",
    }
    with running(tmp_path_factory.mktemp("stack"), environment=settings) as run:
        yield run


def asked(task: str, values: dict[str, Any], **fields: Any) -> LlmRequest:
    """A request of a task, without messages unless `fields` has some."""
    given = {"tenant": "acme", "model": MODELS[0], "task": task, "input": json.dumps(values), **fields}
    return request_of(given, {}, "test")


@pytest.fixture(scope="module")
def answers(pipeline: Running) -> dict[tuple[str, str], Event]:
    """The answers of every task on every provider."""
    requests = {(name, model): asked(name, INPUTS[name], model=model) for name in NAMES for model in MODELS}
    found = ask(pipeline, requests.values())
    return {key: found[request["request_id"]] for key, request in requests.items()}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", NAMES)
def test_every_shipped_task_is_answered_by_every_provider(
    name: str, model: str, answers: dict[tuple[str, str], Event]
) -> None:
    """The answer names the prompt's version, cost and task, and follows the task's schema where it has one."""
    answer = answers[name, model]
    assert (answer["outcome"], answer["task"], answer["prompt_version"]) == ("completed", name, f"{name}/v1"), answer[
        "error"
    ]
    assert answer["cost_nano_usd"] > 0
    task = SHIPPED.get(name)
    assert task is not None
    if task.output is None:
        assert len(text_of(answer)) > 50
    else:
        Draft202012Validator(json.loads(task.output)).validate(json.loads(text_of(answer)))


def test_the_version_is_on_every_fact(pipeline: Running, answers: dict[tuple[str, str], Event]) -> None:
    """Each usage event of these requests has the version of its answer."""
    ids = {answer["request_id"]: answer["prompt_version"] for answer in answers.values()}

    def usages() -> dict[str, set[Any]]:
        found = all_usages(pipeline, CODEC)
        return {each: {usage["prompt_version"] for usage in found[each]} for each in ids if each in found}

    assert eventually(lambda: usages() == {each: {version} for each, version in ids.items()})


def test_messages_behind_the_input_reach_the_model_too(pipeline: Running) -> None:
    """A directive in a message of the request's own, behind those of the task, is obeyed by the simulator."""
    mine = [{"role": "user", "content": [{"type": "text", "text": '[[sim {"text": "As you wish."}]]'}]}]
    answer = ask_one(pipeline, asked("draft_cv", INPUTS["draft_cv"], messages=mine))
    assert text_of(answer) == "As you wish."


@pytest.mark.parametrize("model", MODELS)
def test_an_answer_off_its_schema_is_mended_once(pipeline: Running, model: str) -> None:
    """Every provider is asked once to mend it; a model that cannot is not asked again, and both calls are accounted for."""
    mended, lost = (
        ask_one(pipeline, asked("sentiment", {"text": f"{text} [[sim {json.dumps(sim)}]]"}, model=model))
        for text, sim in (
            ("Good bread.", {"fault": "off_schema", "times": 1, "key": f"mended by {model}"}),
            ("Bad bread.", {"fault": "off_schema"}),
        )
    )
    assert (mended["outcome"], mended["attempts"]) == ("completed", 2), mended["error"]
    assert (lost["error"]["code"], lost["attempts"]) == ("provider_schema_mismatch", 2)

    def made(answer: Event) -> list[tuple[str, str]]:
        found = sorted(all_usages(pipeline, CODEC).get(answer["request_id"], ()), key=lambda each: each["attempt"])
        return [(usage["reason"], usage["status"]) for usage in found]

    assert eventually(lambda: made(mended) == [("first", "failed"), ("repair", "succeeded")])
    assert eventually(lambda: made(lost) == [("first", "failed"), ("repair", "failed")])


def test_two_versions_share_the_users_and_are_compared(pipeline: Running) -> None:
    """A user always gets one version; the report has each version's calls, failures and cost."""
    requests = [asked("greet", {"who": "Bo"}, user=f"user {n % 20}", tenant="split") for n in range(60)]
    found = ask(pipeline, requests)
    versions: dict[str | None, set[str | None]] = {}
    for answer in found.values():
        versions.setdefault(answer["user"], set()).add(answer["prompt_version"])
    assert {len(each) for each in versions.values()} == {1}
    counted = Counter(answer["prompt_version"] for answer in found.values())
    assert set(counted) == {"greet/plain", "greet/broken"}
    assert {a["outcome"] for a in found.values() if a["prompt_version"] == "greet/plain"} == {"completed"}
    store = Store(pipeline.settings)
    sql = "SELECT count() AS n FROM usage WHERE tenant = 'split'"
    assert eventually(lambda: store.rows(sql)[0]["n"] == len(requests))
    store.close()
    done = millstream(pipeline, "report", "--by", "prompt_version", "--tenant", "split", "--format", "json")
    groups = {group["name"]: group for group in json.loads(done.stdout)["groups"]}
    assert {name: group["calls"] for name, group in groups.items()} == counted
    assert groups["greet/plain"]["errors"] == 0
    assert groups["greet/broken"]["errors"] == counted["greet/broken"]
    assert groups["greet/plain"]["spend_per_call_nano_usd"] > 0


def millstream(run: Running, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command on the pipeline."""
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments], env={**os.environ, **run.environment}, input=text,
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip


def test_a_task_is_sent_from_the_shell_without_a_model(pipeline: Running) -> None:
    """`send --task --input` needs no model where a route knows the task's name in routes."""
    done = millstream(
        pipeline, "send", "--task", "extract_job_data", "--input", "-", "--json", text='{"text": "Baker."}'
    )
    answer = json.loads(done.stdout)
    assert (answer["outcome"], answer["route"], answer["prompt_version"]) == (
        "completed",
        "extraction",
        "extract_job_data/v1",
    )
    assert answer["task"] == "extract_job_data"


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "unknown task": ("draft_cvs", {}, "draft_cv"),
    "missing input": ("draft_cv", {}, "input.profile is missing"),
    "a private page": ("extract_job_data", {"url": "http://169.254.169.254/latest"}, "private addresses"),
    "a page of the worker's own": ("extract_job_data", {"url": "http://localhost:8123/"}, "public host"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_task_cannot_take_is_refused_without_a_call(case: str, pipeline: Running) -> None:
    """The caller reads what to mend, nobody is called, and the same request again gets the same answer."""
    task, values, words = REFUSED[case]
    request = asked(task, values)
    answer = ask_one(pipeline, request)
    assert (answer["outcome"], answer["error"]["code"], answer["attempts"]) == ("refused", "caller_invalid_request", 0)
    assert words in answer["error"]["message"]
    assert ask_one(pipeline, request) == answer
    assert request["request_id"] not in all_usages(pipeline, CODEC)
