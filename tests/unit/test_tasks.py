"""Named tasks: what becomes of the inputs of a request."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from config.json_schema import DEEPEST, Schema
from config.settings import Settings
from config.tasks import Prepared, Tasks
from core.admission import problem_of
from core.default_routes import default_routes
from tests.examples import request
from tests.unit.tasks import NAMES, SHIPPED, TEXTS, asked, own, prepared, refused, said

#: The smallest input that each shipped task takes, and a larger one.
INPUTS: dict[str, list[dict[str, Any]]] = {
    "ai_message": [
        {"purpose": "Agree on a call."},
        {"purpose": "Answer.", "channel": "chat", "language": "German", "sender": {"name": "Bo"}, "context": "Ten % off.",
         "recipient": "Ana", "conversation": [{"from": "Ana", "text": "When?", "at": "2026-11-20"}]},
    ],
    "draft_cover_letter": [
        {"profile": "Baker since 2010.", "job": "Baker in Cologne."},
        {"profile": {"name": "Ana"}, "job": {"title": "Baker"}, "recipient": "Ms Lee", "instructions": "Mention my dog."},
    ],
    "draft_cv": [{"profile": "Baker."}, {"profile": {"name": "Ana"}, "job": "Baker", "pages": 1, "instructions": "No photo."}],
    "extract_job_data": [
        {"text": "Baker wanted."},
        {"image": base64.b64encode(b"\x89PNG").decode(), "media_type": "image/png", "url": "https://example.com/1"},
    ],
    "extraction": [
        {"text": "Order 7 of May.", "fields": [{"name": "number", "type": "number"}]},
        {"text": "x", "fields": [{"name": "a", "description": "The a."}, {"name": "b"}]},
    ],
    "lead_insights": [
        {"lead": "A bakery."},
        {"lead": {"company": "B"}, "interactions": [{"text": "Too dear.", "from": "Bo"}], "offer": "Ovens", "today": "2026-11-21"},
    ],
    "sentiment": [{"text": "Good."}, {"text": "Good but slow.", "subject": "delivery"}],
    "summarise": [
        {"text": "Long."},
        {"text": "Long.", "length": "short", "focus": "money", "audience": "children", "language": "French"},
        {"text": "Long.", "length": "long"},
    ],
}  # fmt: skip


def test_every_shipped_task_has_cases_here() -> None:
    """The eight tasks that Millstream promises are shipped, and each is tried below."""
    assert sorted(INPUTS) == NAMES
    assert len(NAMES) == 8


@pytest.mark.parametrize(("name", "values"), [(name, values) for name in NAMES for values in INPUTS[name]])
def test_a_shipped_task_makes_messages_of_its_inputs(name: str, values: dict[str, Any]) -> None:
    """System and user message hold every input given, admission takes the request, parameters and schema are filled in."""
    found = prepared(name, values)
    task = SHIPPED.get(name)
    assert task is not None
    assert [message["role"] for message in found.request["messages"]] == ["system", "user"]
    text = said(found)
    for key, value in values.items():
        if isinstance(value, str) and key not in ("image", "media_type", "length", "channel"):
            assert value in text, key
    assert not any(mark in text for mark in ("{{", "{%", "None", "null,", "\n\n\n"))
    parameters = found.request["parameters"]
    assert (parameters["response_format"], found.repair) == (task.output, task.output is not None)
    assert parameters["max_output_tokens"] == task.parameters.max_output_tokens
    assert (found.prompt_version, found.task, found.request["input"]) == (f"{name}/v1", task.route, None)
    if "image" not in values:
        assert problem_of(found.request, 100, 1_000) is None


def test_tasks_stand_for_the_names_that_routes_know() -> None:
    """The tasks of the default routes are reached by the tasks that are theirs."""
    routes = {task.name: task.route for task in SHIPPED}
    assert (routes["extract_job_data"], routes["draft_cv"], routes["draft_cover_letter"]) == (
        "extraction", "cv_draft", "cover_letter")  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_task_needs_neither_model_nor_plan(name: str) -> None:
    """The routes that a deployment begins with answer each task that it begins with, whatever the plan."""
    routes = {route.task for route in default_routes() if route.plan == "*"}
    assert SHIPPED.get(name).route in routes  # type: ignore[union-attr]


def objects_of(schema: Any) -> Any:
    """Every schema of an object within a schema."""
    if isinstance(schema, dict):
        if "properties" in schema:
            yield schema
        for value in schema.values():
            yield from objects_of(value)


@pytest.mark.parametrize("name", NAMES)
def test_shipped_output_schemas_keep_to_what_every_provider_takes(name: str) -> None:
    """Objects are closed and all their properties required, no bounds, few nullable fields: OpenAI's and Anthropic's strict forms."""
    text = SHIPPED.get(name).output  # type: ignore[union-attr]
    if text is None:
        assert name in ("draft_cv", "draft_cover_letter")
        return
    for each in objects_of(json.loads(text)):
        assert each["additionalProperties"] is False
        assert sorted(each["required"]) == sorted(each["properties"])
    # https://docs.anthropic.com/en/docs/build-with-claude/structured-outputs
    assert not any(
        word in text for word in ('"minimum"', '"maximum"', '"minLength"', '"maxItems"', '"pattern"', '"default"')
    )
    assert text.count('"null"]') <= 16


def test_an_image_goes_to_the_model_as_bytes() -> None:
    """The picture is a part of its own before the text, with its type, and its base64 is not in the text."""
    found = prepared("extract_job_data", INPUTS["extract_job_data"][1])
    image, text = found.request["messages"][1]["content"]
    assert (image["type"], image["media_type"], image["data"]) == ("image", "image/png", b"\x89PNG")
    assert "attached image" in text["text"] and "iVBO" not in text["text"]


def test_messages_of_the_request_come_behind_those_of_the_task() -> None:
    """A conversation can follow the task's messages, and what the request sets wins over what the task does."""
    mine = request("And shorter, please.")["messages"]
    changed = {**request()["parameters"], "max_output_tokens": 7, "response_format": "{}"}
    found = prepared("sentiment", {"text": "Good."}, messages=mine, parameters=changed)
    assert found.request["messages"][2:] == mine
    assert found.request["parameters"] == changed


@pytest.mark.parametrize("task", ["summarise", "anything", None])
def test_without_inputs_a_task_is_a_label(task: str | None) -> None:
    """A request with messages and no input is as it was, whatever its task is called."""
    before = request(task=task)
    found = SHIPPED.prepare(before, "ana")
    assert found == Prepared(before, task, None, False)


BAD_INPUTS: dict[str, tuple[str | None, Any, tuple[str, ...]]] = {
    "unknown task": ("draft_cvs", {}, ("task", "'draft_cvs'", "draft_cv")),
    "no task": (None, {}, ("task", "name the task")),
    "missing": ("draft_cv", {}, ("input.profile is missing", "draft_cv")),
    "no input at all": ("draft_cv", None, ("input.profile is missing",)),
    "missing within": ("extraction", {"text": "x", "fields": [{"type": "text"}]}, ("input.fields[0].name is missing",)),
    "none of several": ("extract_job_data", {}, ("text; or image; or url",)),
    "half an image": ("extract_job_data", {"image": "aGk="}, ("input.media_type is missing", "image")),
    "no base64": ("extract_job_data", {"image": "!", "media_type": "image/png"}, ("input.image", "base64")),
    "another type": ("extract_job_data", {"image": "aGk=", "media_type": "image/tiff"}, ("input.media_type", "image/png")),
    "a url alone": ("extract_job_data", {"url": "https://example.com"}, ("input.url", "TASK_FETCH_URLS", "input.text")),
    "only nulls": ("extract_job_data", {"text": None}, ("empty",)),
    "typing error": ("draft_cv", {"profil": "x", "profile": "x"}, ("input.profil ", "did you mean profile?")),
    "wrong type": ("summarise", {"text": 5}, ("input.text is 5", "string")),
    "too short": ("summarise", {"text": ""}, ("input.text", "minLength")),
    "not in the list": ("summarise", {"text": "x", "length": "epic"}, ("input.length is 'epic'", "short, medium, long")),
    "not JSON": ("summarise", "{", ("input is not JSON",)),
    "no object": ("summarise", "[1]", ("input is no JSON object",)),
    "not a number": ("summarise", '{"text": NaN}', ("input is not JSON",)),
    "too deep": ("draft_cv", '{"profile": ' + '{"a":' * 900 + "1" + "}" * 901, ("deeper than",)),
    "beyond any depth": ("draft_cv", '{"profile": ' + "[" * 100_000, ("input is not JSON",)),
    "many mistakes": ("extraction", {"text": "x", "fields": [1] * 50_000}, ("input.fields",)),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_INPUTS)
def test_bad_inputs_are_refused_by_field(case: str) -> None:
    """The caller reads which field is wrong and what it must be, in a sentence of bounded length."""
    task, values, words = BAD_INPUTS[case]
    message = refused(SHIPPED, asked(task, values))
    assert all(word in message for word in words), message
    assert len(message) < 600


def test_a_page_is_asked_for_only_where_the_deployment_fetches(tmp_path: Path) -> None:
    """With fetching on, a URL alone names the page to fetch, whose text then is the input; text beside a URL needs no page."""
    on = Tasks.load(Settings(task_fetch_urls=True))
    alone, beside = {"url": "https://example.com/1"}, {"url": "https://example.com/1", "text": "Baker."}
    assert on.page_of(asked("extract_job_data", alone)) == "https://example.com/1"
    assert on.page_of(asked("extract_job_data", beside)) is None
    assert on.page_of(asked("summarise", alone)) is None
    assert on.page_of(asked("extract_job_data", "{")) is None
    assert SHIPPED.page_of(asked("extract_job_data", alone)) is None
    found = on.prepare(asked("extract_job_data", alone), "ana", page="A {{ page }}.")
    assert isinstance(found, Prepared) and "A {{ page }}." in said(found)


def test_what_cannot_be_rendered_is_the_callers_to_mend(tmp_path: Path) -> None:
    """A rendering beyond its bounds is `caller_invalid_request` and names the prompt; the pipeline does not fail on it."""
    tasks = own(tmp_path, max_request_bytes=100)
    assert "greet/" in refused(tasks, asked("greet", {"who": "x" * 200}))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@examples(deadline=None)
@given(st.sampled_from(NAMES), st.dictionaries(st.sampled_from(["text", "profile", "job", "purpose", "lead", "fields", "image", "url"]), JSON))  # fmt: skip
def test_any_input_of_any_task_is_prepared_or_refused_and_always_the_same(name: str, values: dict[str, Any]) -> None:
    """No input makes a task raise; what comes of it is the same each time, and an accepted text stands in it as it is."""
    asking = asked(name, values)
    found = SHIPPED.prepare(asking, "ana")
    assert SHIPPED.prepare(asking, "ana") == found
    if not isinstance(found, Prepared):
        assert found["code"] == "caller_invalid_request"
        return
    if isinstance(values.get("text"), str):
        assert values["text"].strip() in said(found)


def test_depth_is_counted_in_levels() -> None:
    """A value of as many levels as allowed passes, one level more is refused by name."""
    schema = Schema({"type": "object", "properties": {"a": {}}})

    def nested(levels: int) -> dict[str, Any]:
        value: Any = 1
        for _ in range(levels - 1):
            value = [value]
        return {"a": value}

    assert schema.problem(nested(DEEPEST), "input") is None
    assert "deeper" in (schema.problem(nested(DEEPEST + 1), "input") or "")
