"""Images, audio, files, tools and schemas through the running pipeline, on every provider that takes them."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from cli.lines import request_of
from cli.running import Running
from schemas.codec import Codec, Event
from tests.media import FILES, WEATHER
from tests.stack.asking import all_usages, ask, eventually, simulator
from tests.stack.crowd import MODELS

AUDIO_MODELS = {"openai": "openai/gpt-audio", "google": "google/gemini-2.5-flash"}
SCHEMA = '{"type":"object","properties":{"city":{"type":"string"}},"required":["city"],"additionalProperties":false}'
QUESTION = {"type": "text", "text": "What is it?"}
CALL = {"type": "tool_call", "tool_call_id": "c1", "tool_name": "weather", "tool_arguments": '{"city":"Rome"}'}
RESULT = {"type": "tool_result", "tool_call_id": "c1", "text": "Sunny."}


def turn(role: str, *parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": role, "content": list(parts)}


def medium(kind: str, media_type: str) -> dict[str, Any]:
    return {"type": kind, "media_type": media_type, "data": base64.b64encode(FILES[media_type]).decode()}


def with_parts(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [turn("user", QUESTION, *parts)]}


CASES: dict[str, dict[str, Any]] = {
    "an image by its bytes": with_parts(medium("image", "image/png")),
    "an image by its URL": with_parts({"type": "image", "media_type": "image/png", "url": "https://example.com/picture.png"}),
    "a file": with_parts(medium("file", "application/pdf")),
    "a tool": {"prompt": "Weather?", "tools": [WEATHER], "tool_choice": "required"},
    "a tool's result": {"messages": [turn("user", QUESTION), turn("assistant", CALL), turn("tool", RESULT)], "tools": [WEATHER]},
    "a schema": {"prompt": "Which city?", "parameters": {"response_format": SCHEMA}},
}  # fmt: skip
ASKED = {(name, case): (MODELS[name], fields) for name in MODELS for case, fields in CASES.items()} | {
    (name, "audio"): (model, with_parts(medium("audio", "audio/wav"))) for name, model in AUDIO_MODELS.items()
}


@pytest.fixture(scope="module")
def answered(pipeline: Running) -> dict[tuple[str, str], tuple[Event, Event, Any]]:
    """The answer, the usage event and the simulator's own record of every case."""
    requests = {
        case: request_of({"model": model, "tenant": "acme", **fields}, {}, "test")
        for case, (model, fields) in ASKED.items()
    }
    answers = ask(pipeline, requests.values())
    ids = {request["request_id"] for request in requests.values()}

    def seen() -> dict[str, list[Event]] | None:
        found = all_usages(pipeline, Codec())
        return found if ids <= found.keys() else None

    usages = eventually(seen)
    calls = {call["client_request_id"]: call for call in simulator(pipeline, "calls?since=0")}
    return {
        case: (answers[r["request_id"]], usage, calls[usage["attempt_id"]])
        for case, r in requests.items()
        for [usage] in [usages[r["request_id"]]]
    }


@pytest.mark.parametrize("case", ASKED, ids=lambda case: f"{case[0]}: {case[1]}")
def test_what_a_request_holds_arrives_and_is_accounted_for_exactly(answered: Any, case: tuple[str, str]) -> None:
    """The call is made once and answered; tokens and cost are those of the provider's own account, within the reservation."""
    answer, usage, seen = answered[case]
    assert answer["outcome"] == "completed", answer["error"]
    assert {name: count or 0 for name, count in usage["tokens"].items()} == seen["tokens"]
    assert usage["cost_nano_usd"] == seen["cost_nano_usd"] > 0
    assert usage["cost_nano_usd"] <= usage["reserved_nano_usd"]


@pytest.mark.parametrize("name", MODELS)
def test_tools_and_schemas_shape_the_answer(answered: Any, name: str) -> None:
    """A tool that must be called is, with arguments of its schema; with its result there are words; a schema is followed."""
    [called] = answered[name, "a tool"][0]["output"]
    assert (called["type"], called["tool_name"]) == ("tool_call", "weather")
    assert list(json.loads(called["tool_arguments"])) == ["city"]
    assert [part["type"] for part in answered[name, "a tool's result"][0]["output"]] == ["text"]
    [said] = answered[name, "a schema"][0]["output"]
    assert list(json.loads(said["text"])) == ["city"]
