"""Structured output: which schemas can be used, which answers follow them, and what a repair asks."""

from __future__ import annotations

import socket
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.caller_schemas import LONGEST_PROBLEM
from agents.providers.base import tool_call_part
from agents.structured import (
    REPAIR_TOKENS,
    answer_problem,
    answer_text,
    checked,
    repair_request,
    schema_problem,
)
from config.prices import price_on
from core.admission import problem_of
from core.bounds import text_tokens
from core.errors import CODES, ProviderError
from core.facts import Attempt, usage
from core.pricing import upper_bound
from core.reply import NO_TOKENS, Reply, text_part
from local.simulator.answers import OFF_SCHEMA
from local.simulator.samples import sample
from schemas.events import LlmCall, LlmRequest
from tests.examples import NOON, call, request
from tests.media import WEATHER, tool_call

CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "minLength": 2}, "near": {"type": "array", "items": {"$ref": "#/$defs/place"}},
                   "on": {"type": "string", "format": "date"}, "code": {"type": "string", "pattern": "^[A-Z]{2}$"}},
    "required": ["city"],
    "additionalProperties": False,
    "$defs": {"place": {"type": "object", "properties": {"km": {"type": "number", "minimum": 0}}, "required": ["km"]}},
}  # fmt: skip


def asking(schema: Any) -> LlmRequest:
    """A request whose answer must follow this schema."""
    text = schema if isinstance(schema, str) else orjson.dumps(schema).decode()
    return request(parameters={**request()["parameters"], "response_format": text})


def asking_call(schema: Any) -> LlmCall:
    return call(parameters=asking(schema)["parameters"])


def reply(*texts: str, finish: str = "stop") -> Reply:
    return Reply(
        tuple(text_part(text) for text in texts), finish, "gpt-5-mini-1", "id",
        {**NO_TOKENS, "input_uncached": 50, "output_text": 7}, "{}",  # type: ignore[typeddict-item]
    )  # fmt: skip


DEEP, DEEPER = ('{"items":' * depth + "{}" + "}" * depth for depth in (900, 5_000))


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "thing"}, ["'thing'"]), ({"properties": {"a": {"type": 5}}}, ["properties.a.type"]),
        ({"$ref": "https://example.com/schema.json"}, ["https://example.com/schema.json", "nothing is fetched"]),
        ({"properties": {"a": {"$ref": "other.json#/a"}}}, ["other.json"]), ({"$ref": "#/$defs/none"}, ["#/$defs/none", "not have"]),
        ({"$schema": "https://example.com/mine"}, ["https://example.com/mine"]),
        ({"patternProperties": {"^(a+)+$": {}}}, ["patternProperties"]), (DEEP, ["deeply"]), (DEEPER, ["2,000"]),
        ({"properties": {"a": {"pattern": "(?=a)b"}}}, ["'(?=a)b'", "looks around"]),
        ({"items": {"pattern": "(a{1000}){1000}"}}, ["steps", "shorter"]),
        ({"properties": {"a": {"$schema": "http://json-schema.org/draft-07/schema#"}}}, ["$schema"]),
        ({"properties": {"a": {"$ref": "#/hidden"}}, "hidden": {"patternProperties": {"^(a+)+$": {}}}}, ["#/hidden", "$defs"]),
        ({"$ref": "#/hidden", "hidden": 5}, ["#/hidden", "$defs"]),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "items": [{"patternProperties": {"^(a+)+$": {}}}]}, ["patternProperties"]),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "dependencies": {"a": {"patternProperties": {"b": {}}}}},
         ["patternProperties"]),
        ({"allOf": [{}] * 3_000}, ["2,000", "shorter"]),
    ],
)  # fmt: skip
def test_a_schema_that_cannot_be_used_is_refused_by_name(schema: Any, words: list[str]) -> None:
    """What is no schema, points outside itself or cannot be checked in bounded time never reaches a provider."""
    found = schema_problem(asking(schema))
    assert found is not None
    assert found["code"] == "caller_invalid_request"
    assert all(word in found["message"] for word in ["response_format", *words]), found["message"]


def test_a_tools_schema_is_checked_too() -> None:
    """The arguments of a tool have a schema of their own, which is named with the tool's place."""
    bad = {**WEATHER, "parameters": '{"type":"object","properties":{"city":{"type":"town"}}}'}
    found = schema_problem(request(tools=[WEATHER, bad]))
    assert found is not None
    assert "tools[1].parameters" in found["message"]
    assert schema_problem(request(tools=[WEATHER])) is None


@pytest.mark.parametrize(
    "schema", [CITY, {}, {"$schema": "http://json-schema.org/draft-07/schema#", "type": "array"}, {"properties": {"$ref": {"type": "string"}}}]
)  # fmt: skip
def test_usable_schemas_pass(schema: Any) -> None:
    """Schemas of every known dialect, references inside them, and properties that are called like keywords."""
    assert schema_problem(asking(schema)) is None


def test_no_schema_makes_the_worker_fetch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a schema refers to, no connection is opened, neither when it is checked nor when an answer is."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("A connection was opened.")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for schema in (
        {"$ref": "http://127.0.0.1:1/a"},
        {"$id": "http://127.0.0.1:1/", "$ref": "a"},
        {"$dynamicRef": "http://127.0.0.1:1/#a"},
    ):
        assert schema_problem(asking(schema)) is not None
        with pytest.raises(ValueError):  # noqa: PT011 - the sentence is the caller's, told by schema_problem
            answer_problem(asking(schema), reply("{}"))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("It is Rome.", ["not JSON"]), ("", ["not JSON"]), ('{"city":"R', ["not JSON"]), ('```json\n{"city":"Rome"}\n```', ["not JSON"]),
        ('{"city":"R"}', ["$.city", "'R'", "short"]), ("{}", ["'city'", "required"]), ('{"city":"Rome","x":1}', ["'x'"]),
        ('{"city":"Rome","on":"tomorrow"}', ["$.on", "'date'"]), ('{"city":"Rome","code":"it"}', ["$.code", "^[A-Z]{2}$"]),
        ('{"city":"Rome","near":[{"km":1},{"km":-1}]}', ["$.near[1].km", "-1"]), (OFF_SCHEMA, ["object"]),
    ],
)  # fmt: skip
def test_an_answer_that_does_not_follow_its_schema_is_told_where(answer: str, words: list[str]) -> None:
    """The problem names the place in the answer and what is wrong there, in a sentence of bounded length."""
    problem = answer_problem(asking(CITY), reply(answer))
    assert problem is not None
    assert all(word in problem for word in words), problem
    assert len(problem) < LONGEST_PROBLEM + 200


def test_an_answer_that_was_cut_off_says_so() -> None:
    """Where the bound on the output cut the JSON off, the sentence names the bound."""
    problem = answer_problem(asking(CITY), reply('{"city":"R', finish="length"))
    assert problem is not None
    assert "max_output_tokens" in problem


def test_what_follows_its_schema_or_has_none_passes() -> None:
    """Valid JSON, also in several parts; any text without a schema; and an answer that first asks for a tool."""
    good = reply('{"city":', '"Rome"}')
    assert checked(asking_call(CITY), good) is good
    assert answer_problem(request(), reply("anything")) is None
    asked = Reply((tool_call(),), "tool_calls", None, None, NO_TOKENS, None)
    assert answer_problem(asking(CITY), asked) is None


NAMES = st.sampled_from(["a", "b", "c"])
SCHEMAS = st.recursive(
    st.sampled_from([{"type": "string"}, {"type": "integer", "minimum": 3}, {"type": "boolean"}, {"enum": ["x", 1]}, {"const": None}]),
    lambda inner: st.one_of(
        inner.map(lambda items: {"type": "array", "items": items, "minItems": 1}),
        st.dictionaries(NAMES, inner, max_size=3).map(
            lambda found: {"type": "object", "properties": found, "required": list(found), "additionalProperties": False}
        ),
        inner.map(lambda option: {"anyOf": [option, {"type": "null"}]}),
    ),
    max_leaves=6,
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(SCHEMAS)
def test_a_sample_of_a_schema_follows_it_and_a_stranger_does_not(schema: dict[str, Any]) -> None:
    """What the simulator says to a schema passes; a value that no such schema allows never does."""
    assert schema_problem(asking(schema)) is None
    assert answer_problem(asking(schema), reply(orjson.dumps(sample(schema)).decode())) is None
    assert answer_problem(asking(schema), reply('{"stranger": 0.5}')) is not None


def test_a_schema_cannot_keep_a_worker_busy() -> None:
    """A chain of references that doubles its work at each step, and one that leads to itself, end with a problem."""
    doubling: dict[str, Any] = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(60)} | {
        "d60": {}
    }
    for schema in ({"$ref": "#/$defs/d0", "$defs": doubling}, {"$ref": "#"}):
        assert schema_problem(asking(schema)) is None
        assert "cannot be checked" in (answer_problem(asking(schema), reply("{}")) or "")
    nested: dict[str, Any] = {}
    for _ in range(30):
        nested = {"anyOf": [{"properties": {"a": True}}, nested], "unevaluatedProperties": True}
    many, heavy = {"items": {"allOf": [{"minimum": 0}] * 900}}, {"items": {"enum": list(range(100_000))}}
    for schema, answer in ((nested, '{"a":1}'), (many, f"[{'1,' * 999}1]"), (heavy, f"[{'1,' * 999}1]")):
        assert schema_problem(asking(schema)) is None
        assert "cannot be checked" in (answer_problem(asking(schema), reply(answer)) or "")
    objects = ",".join(f'{{"a":{number}}}' for number in range(20_000))
    unique = {"uniqueItems": True}
    assert answer_problem(asking(unique), reply(f"[{objects}]")) is None
    assert "equal" in (answer_problem(asking(unique), reply(f'[{objects},{{"a":1.0}}]')) or "")
    assert answer_problem(asking(unique), reply('[1,true,"1",[1],{"a":[1]},{"a":[true]}]')) is None
    evil = {"type": "string", "pattern": "^(a+)+$"}
    assert "does not match" in (answer_problem(asking(evil), reply('"' + "a" * 60 + '!"')) or "")
    long = {"items": {"pattern": "^[ab]{0,1000}$"}}
    assert schema_problem(asking(long)) is None
    answers = [reply(orjson.dumps(["ab" * 50] * strings).decode()) for strings in (40, 60)]
    assert answer_problem(asking(long), answers[0]) is None
    assert "cannot be checked" in (answer_problem(asking(long), answers[1]) or "")


def test_a_call_to_a_tool_is_no_answer_yet() -> None:
    """However the provider says that it ended, as OpenAI says `stop` of a tool that had to be called."""
    asks = Reply((tool_call_part("c1", "weather", "{}"),), "stop", "m", "id", NO_TOKENS, None)
    assert answer_problem(asking(CITY), asks) is None


def test_a_mismatch_keeps_what_was_paid_for() -> None:
    """The error has its code, the usage event the tokens and the cost, and the answer's text is there for a repair."""
    wrong = reply("It is Rome.")
    with pytest.raises(ProviderError) as failed:
        checked(asking_call(CITY), wrong)
    assert failed.value.error["code"] == "provider_schema_mismatch"
    assert failed.value.error["retryable"] is CODES["provider_schema_mismatch"].retryable is True
    assert failed.value.reply is not None
    assert answer_text(failed.value.reply) == "It is Rome."
    price = price_on("openai", "gpt-5-mini", NOON // 86_400_000_000)
    fact = usage(asking_call(CITY), Attempt("a", 1, "first", NOON), failed.value, NOON + 1, price)
    assert (fact["status"], fact["error_code"], fact["cost_status"]) == ("failed", "provider_schema_mismatch", "priced")
    assert (fact["tokens"]["output_text"], (fact["cost_nano_usd"] or 0) > 0) == (7, True)


@pytest.mark.parametrize("answer", ["It is Rome.", "", " ", OFF_SCHEMA])
def test_a_repair_shows_the_answer_and_says_what_is_wrong(answer: str) -> None:
    """The repaired call is the same but for the wrong answer, where there is one, and a sentence behind it."""
    first = asking_call(CITY)
    again = repair_request(first, answer, "at $, 'city' is a required property.")
    added = again["request"]["messages"][len(first["request"]["messages"]) :]
    assert [message["role"] for message in added] == (["assistant", "user"] if answer.strip() else ["user"])
    assert "'city' is a required property" in (added[-1]["content"][0]["text"] or "")
    assert {**again, "request": {**again["request"], "messages": first["request"]["messages"]}} == first
    assert problem_of(again["request"], 1, 2) is None


@given(st.text(min_size=1, max_size=2_000))
def test_a_repair_stays_within_what_is_reserved_for_it(problem: str) -> None:
    """Beside the answer, whose tokens the request's own limit bounds, a repair adds no more than `REPAIR_TOKENS`."""
    first = asking_call(CITY)
    again = repair_request(first, "", problem)
    assert text_tokens(again["request"]) - text_tokens(first["request"]) <= REPAIR_TOKENS
    price = price_on("openai", "gpt-5-mini", NOON // 86_400_000_000)
    bound = upper_bound(first["request"], "openai", "gpt-5-mini", 100, price, reread_tokens=100 + REPAIR_TOKENS)
    assert (bound or 0) > (upper_bound(first["request"], "openai", "gpt-5-mini", 100, price) or 0)
