"""Named tasks: what their files may hold, what becomes of inputs, which version of a prompt a request gets."""

from __future__ import annotations

import base64
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from config.json_schema import DEEPEST, Schema
from config.settings import Settings, SettingsError
from config.task_files import read_task
from config.tasks import Prepared, Tasks, choose
from config.templates import MOST_ROUNDS, Template, TemplateError
from core.admission import problem_of
from core.default_routes import default_routes
from schemas.events import LlmRequest
from tests.examples import request

SHIPPED = Tasks.load(Settings())
NAMES = [task.name for task in SHIPPED]
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
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "text": {"type": "string"},
        "order": {"type": "object", "properties": {"items": {"type": "array", "items": {"$ref": "#/$defs/line"}}}},
        "free": {},
        "note": {"type": ["string", "null"], "default": "none"},
        "lines": {"type": "array", "items": {"type": "string"}},
    },
    "$defs": {"line": {"type": "object", "properties": {"name": {"type": "string"}, "count": {"type": "integer"}}}},
}
TASK = """
name: greet
description: Greets.
input:
  type: object
  required: [who]
  properties:
    who: {type: string}
prompts:
  - name: plain
    weight: 3
    user: "Greet {{ who }}."
  - name: warm
    system: Be warm.
    user: "Greet {{ who }} warmly."
"""


def asked(task: str | None, values: Any, **changes: Any) -> LlmRequest:
    """A request for a task, without messages of its own unless `changes` has some."""
    text = values if isinstance(values, str) or values is None else json.dumps(values)
    return request(**{"messages": [], "task": task, "input": text, **changes})


def prepared(task: str, values: Any, tasks: Tasks = SHIPPED, sticky: str = "ana", **changes: Any) -> Prepared:
    """What becomes of a request that is good."""
    found = tasks.prepare(asked(task, values, **changes), sticky)
    assert isinstance(found, Prepared), found
    return found


def refused(tasks: Tasks, of: LlmRequest) -> str:
    """The sentence that a caller gets."""
    found = tasks.prepare(of, "ana")
    assert not isinstance(found, Prepared)
    assert found["code"] == "caller_invalid_request"
    return found["message"]


def own(folder: Path, text: str = TASK, name: str = "greet", **settings: Any) -> Tasks:
    """The tasks of a deployment with a file of its own."""
    (folder / f"{name}.yaml").write_text(text, "utf-8")
    return Tasks.load(Settings(tasks_dir=str(folder), **settings))


def said(found: Prepared) -> str:
    """All text of the messages."""
    return "\n".join(part["text"] or "" for message in found.request["messages"] for part in message["content"])


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


# ---------------------------------------------------------------------------- versions


def test_a_version_is_chosen_by_weight_and_stays(tmp_path: Path) -> None:
    """Of many users about three quarters get the version of weight 3, and each gets the same one every time, in every process."""
    tasks, same = own(tmp_path), own(tmp_path)
    first = [prepared("greet", {"who": "x"}, tasks, f"user {n}").prompt_version for n in range(2_000)]
    again = [prepared("greet", {"who": "y"}, same, f"user {n}").prompt_version for n in range(2_000)]
    assert first == again
    counted = Counter(first)
    assert set(counted) == {"greet/plain", "greet/warm"}
    assert 1_400 < counted["greet/plain"] < 1_600
    assert [(version or "").removeprefix("greet/") for version in first[:6]] == [
        "warm",
        "plain",
        "warm",
        "plain",
        "warm",
        "plain",
    ]


def test_a_version_of_weight_zero_gets_nothing(tmp_path: Path) -> None:
    """A retired version can stay in its file."""
    tasks = own(tmp_path, TASK.replace("weight: 3", "weight: 0"))
    assert {prepared("greet", {"who": "x"}, tasks, str(n)).prompt_version for n in range(200)} == {"greet/warm"}


@examples(deadline=None)
@given(st.text(), st.lists(st.integers(0, 1_000_000), min_size=1, max_size=5).filter(any))
def test_every_key_gets_a_version_that_has_weight(sticky: str, weights: list[int]) -> None:
    """Whatever the key and the weights, the choice is one of the versions with a weight, and the same when asked again."""
    task = SHIPPED.get("summarise")
    assert task is not None
    versions = tuple(replace(task.prompts[0], name=f"v{n}", weight=weight) for n, weight in enumerate(weights))
    changed = replace(task, prompts=versions)
    found = choose(changed, sticky)
    assert found.weight > 0
    assert choose(changed, sticky) is found


# ---------------------------------------------------------------------------- files


def test_a_deployment_adds_and_replaces_tasks(tmp_path: Path) -> None:
    """A file of the deployment's own is a task beside the shipped ones, or stands in place of the one of its name."""
    assert [task.name for task in own(tmp_path)] == sorted([*NAMES, "greet"])
    replaced = own(tmp_path, TASK.replace("name: greet", "name: summarise"), "summarise")
    assert said(prepared("summarise", {"who": "Ana"}, replaced, "ana")).endswith(("Greet Ana.", "Greet Ana warmly."))


BAD_FILES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "unknown field": ("description: Greets.", "description: Greets.\ncolour: red", ("field colour is not known",)),
    "unknown field within": ("weight: 3", "wieght: 3", ("prompts[0].wieght is not known",)),
    "missing field": ("description: Greets.", "", ("field description",)),
    "wrong type": ("weight: 3", "weight: many", ("prompts[0].weight", "integer")),
    "negative weight": ("weight: 3", "weight: -3", ("prompts[0].weight", "greater than or equal to 0")),
    "another name": ("name: greet\n", "name: great\n", ("field name is 'great'", "'greet'")),
    "no mapping": (TASK, "- a", ("no mapping",)),
    "no YAML": (TASK, "a: [", ("is not YAML",)),
    "a tag": ("description: Greets.", "description: !!python/object/apply:os.system [ls]", ("is not YAML",)),
    "a key twice": ("description: Greets.", "description: Greets.\ndescription: Twice.", ("key 'description' twice",)),
    "a key that is no text": ("{type: string}", "{type: object, properties: {on: {}}}", ("key True", "quotes")),
    "a list for a key": ("description: Greets.", "? [a]\n: b", ("is not YAML",)),
    "an alias": ("description: Greets.", "description: &a Greets.\nroute: *a", ("alias",)),
    "no JSON schema": ("type: object", "type: objekt", ("field input is no JSON schema", "objekt")),
    "a schema elsewhere": ("{type: string}", "{$ref: 'https://example.com/x.json'}", ("field input", "https://example.com")),
    "a schema nowhere": ("{type: string}", "{$ref: '#/$defs/x'}", ("field input", "#/$defs/x")),
    "a schema of a list": ("type: object", "type: array", ("field input must be of type object",)),
    "undefined variable": ("Greet {{ who }}.", "Greet {{ whom }}.", ("prompts[0].user (plain)", "'whom'", "it has who")),
    "syntax": ("Greet {{ who }}.", "Greet {{ who.", ("prompts[0].user", "Line 1")),
    "two of one name": ("name: warm", "name: plain", ("two versions have one name",)),
    "weights of zero": ("weight: 3", "weight: 0\n    # of all\n", ()),
    "no version": (TASK[TASK.index("prompts:") :], "prompts: []", ("field prompts",)),
    "attachment of no input": ("prompts:", "attach:\n  - {type: image, data: pic, media_type: who}\nprompts:", ("attach[0].data", "'pic'")),
    "page of no input": ("prompts:", "page: {url: link, into: who}\nprompts:", ("page.url", "'link'")),
    "a bad default": ("prompts:", "parameters: {temperature: 3}\nprompts:", ("parameters.temperature",)),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_file_that_cannot_be_used_is_refused_by_file_and_field(case: str, tmp_path: Path) -> None:
    """The sentence names the file, the field and what is wrong, before anything runs."""
    before, after, words = BAD_FILES[case]
    assert before in TASK
    if case == "weights of zero":
        assert own(tmp_path, TASK.replace(before, after)) is not None
        words, before, after = ("every weight is 0",), TASK, TASK.replace("weight: 3", "weight: 0").replace(
            "name: warm", "name: warm\n    weight: 0")  # fmt: skip
    with pytest.raises(SettingsError) as problem:
        own(tmp_path, TASK.replace(before, after))
    message = str(problem.value)
    assert message.startswith(f"Task file {tmp_path / 'greet.yaml'}: ")
    assert all(word in message for word in words), message


def test_a_folder_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    """A folder that is not there, and a file whose ending would hide it, are said at start."""
    with pytest.raises(SettingsError, match="MILLSTREAM_TASKS_DIR"):
        Tasks.load(Settings(tasks_dir=str(tmp_path / "none")))
    (tmp_path / "greet.yml").write_text(TASK)
    with pytest.raises(SettingsError, match=r"\.yaml; rename"):
        Tasks.load(Settings(tasks_dir=str(tmp_path)))
    (tmp_path / "greet.yml").rename(tmp_path / "greet.yaml")
    (tmp_path / "greet.yaml").write_bytes(b"\xff")
    with pytest.raises(SettingsError, match="cannot be read"):
        read_task(tmp_path / "greet.yaml")


# ---------------------------------------------------------------------------- templates

HOSTILE_TEMPLATES = {
    "class": "{{ text.__class__ }}",
    "class by brackets": "{{ text['__class__'].__mro__ }}",
    "a call": "{{ free.clear() }}",
    "a global": "{{ range(9) }}",
    "no such global": "{{ lipsum }}",
    "self": "{{ self }}",
    "huge range": "{% for n in range(10**9) %}{% endfor %}",
    "power": "{{ 10 ** 1000000000 }}",
    "repetition": "{{ 'x' * 1000000000 }}",
    "format": "{{ '%999999999d' % 1 }}",
    "format filter": "{{ '%s'|format(text) }}",
    "attr filter": "{{ text|attr('__class__') }}",
    "map filter": "{{ lines|map('upper')|list }}",
    "center filter": "{{ text|center(1000000000) }}",
    "replace filter": "{{ text|replace('a', text) }}",
    "join by an input": "{{ lines|join(text) }}",
    "arguments out of an input": "{{ lines|join(*lines) }}",
    "named arguments out of an input": "{{ lines|join(**order) }}",
    "a huge argument": "{{ text|truncate(1000000000) }}",
    "include": "{% include '/etc/passwd' %}",
    "import": "{% import 'os' as os %}{{ os }}",
    "extends": "{% extends 'base' %}",
    "macro": "{% macro m() %}{% endmacro %}",
    "set": "{% set a = text ~ text %}{{ a }}",
    "block": "{% block a %}{% endblock %}",
    "deep loops": "{% for a in lines %}{% for b in lines %}{% for c in lines %}{% for d in lines %}x"
    + "{% endfor %}" * 4,
    "recursive loop": "{% for a in lines recursive %}{{ loop(lines) }}{% endfor %}",
    "the context's own": "{{ loop }}",
    "unknown within": "{{ order.nothing }}",
    "unknown within a list": "{% for line in order['items'] %}{{ line.price }}{% endfor %}",
    "unknown by number": "{{ order['items'][0].price }}",
    "very long": "x" * 50_001,
    "very deep": "{{ " + "(" * 5_000 + "text" + ")" * 5_000 + " }}",
}


@pytest.mark.parametrize("case", HOSTILE_TEMPLATES)
def test_a_template_that_does_more_than_read_its_inputs_is_refused_when_loaded(case: str) -> None:
    """Calls, globals, arithmetic, other templates, hidden attributes and unknown inputs never come to be rendered."""
    with pytest.raises(TemplateError):
        Template(HOSTILE_TEMPLATES[case], SCHEMA)


def shown(source: str, **values: Any) -> str:
    """A template's text for these inputs."""
    return Template(source, SCHEMA).render(Schema(SCHEMA).completed(values), 10_000)


def test_a_template_reads_inputs_and_nothing_of_python() -> None:
    """A dot reads a key even where a dict has a method of that name; defaults stand in; loops, filters and tests work."""
    order = {"items": [{"name": "roll", "count": 2}, {"name": "loaf"}]}
    assert shown("{% for l in order.items %}{{ loop.index }} {{ l.name }}{{ ';' if not loop.last }}{% endfor %}" .replace(
        "{{ ';' if not loop.last }}", "{% if not loop.last %};{% endif %}"), order=order) == "1 roll;2 loaf"  # fmt: skip
    assert shown("{{ note }} {{ lines is none }}") == "none True"
    assert shown("{% for line in lines %}x{% else %}no lines{% endfor %}") == "no lines"
    assert shown("{{ text|upper }} {{ lines|join(', ') }} {{ free|tojson }}", text="a", lines=["b", "c"], free={"d": "<&é"}) == (
        'A b, c {"d":"<&é"}')  # fmt: skip
    assert shown("{% for key, value in free|items %}{{ key }}={{ value }}{% endfor %}", free={"a": 1}) == "a=1"


HOSTILE_INPUTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "many rounds": ("{% for a in lines %}{% for b in lines %}{% if false %}x{% endif %}{% endfor %}{% endfor %}",
                    {"lines": ["x"] * 500}, f"more than {MOST_ROUNDS}"),
    "long text": ("{{ text }}{{ text }}", {"text": "é" * 2_600}, "10000 bytes"),
    "what is missing": ("{{ free.a.b }}", {"free": {}}, "UndefinedError"),
    "an attribute": ("{{ free.clear }}", {"free": {}}, "UndefinedError"),
    "an attribute of text": ("{{ free.upper }}", {"free": "x"}, "UndefinedError"),
    "another type": ("{% if free > 1 %}x{% endif %}", {"free": "x"}, "TypeError"),
    "a loop over text": ("{% for a in free %}x{% endfor %}", {"free": "text"}, "no list"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE_INPUTS)
def test_a_rendering_that_runs_out_of_bounds_ends_with_a_sentence(case: str) -> None:
    """Rounds, bytes and readings are bounded; the error is one sentence, not a crash."""
    source, values, words = HOSTILE_INPUTS[case]
    with pytest.raises(TemplateError) as problem:
        shown(source, **values)
    assert words in str(problem.value)
    assert len(str(problem.value)) < 300


def test_what_cannot_be_rendered_is_the_callers_to_mend(tmp_path: Path) -> None:
    """A rendering beyond its bounds is `caller_invalid_request` and names the prompt; the pipeline does not fail on it."""
    tasks = own(tmp_path, max_request_bytes=100)
    assert "greet/" in refused(tasks, asked("greet", {"who": "x" * 200}))


ATTACKS = (
    "{{ 7 * 7 }}",
    "{% for a in b %}",
    "{{ who.__class__ }}",
    "{# x #}",
    "}}",
    "%}",
    "{% raw %}",
    "# line",
    "\x00",
    "{{",
)
TEXTS = st.lists(st.sampled_from(ATTACKS) | st.text(st.characters(exclude_categories=["Cs"])), min_size=1).map("".join)


@examples(deadline=None)
@given(TEXTS)
def test_an_input_is_never_template_code(text: str) -> None:
    """Whatever a text says, it stands in the prompt character by character, and the prompt around it is the same."""
    found = Template("<a>{{ text }}</a>", SCHEMA).render({"text": text}, 1_000_000)
    assert found == f"<a>{text}</a>"


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
