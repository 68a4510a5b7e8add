"""Media and tools of every provider, through its real SDK against the simulator."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from core.admission import problem_of
from core.features import FEATURES
from core.reply import Reply, text_part
from schemas.events import LlmCall, LlmRequest, Message, Tool
from tests.contract.calling import (
    PATHS,
    ask,
    every_provider,
    failed,
    llm_call,
    settings_of,
)
from tests.contract.simulator import Simulator
from tests.media import FILES, WEATHER, medium, tool_call, tool_result, turn


def conversation(name: str, *messages: Message, **changes: Any) -> LlmCall:
    """A call with these messages."""
    asked = llm_call(name)
    asked["request"] = cast(LlmRequest, {**asked["request"], "messages": list(messages), **changes})
    return asked


MEDIA = [
    (name, media_type)
    for name in PATHS
    for media_type in FILES
    if media_type in FEATURES[name].most_bytes
]  # fmt: skip


@pytest.mark.parametrize(("name", "media_type"), MEDIA)
def test_media_arrive_and_their_tokens_are_counted(simulator: Simulator, name: str, media_type: str) -> None:
    """A file of every type that the provider takes is read by it, by its bytes and by URL where it reads those, and paid for."""
    told = turn("user", text_part("What is it?"))
    plain = ask(settings_of(name, simulator.url), conversation(name, told))
    parts = [medium(media_type)]
    if parts[0]["type"] in FEATURES[name].urls:
        parts.append(medium(media_type, url="https://example.com/it"))
    for part in parts:
        reply = ask(settings_of(name, simulator.url), conversation(name, turn("user", *told["content"], part)))
        assert isinstance(reply, Reply), reply
        assert isinstance(plain, Reply)
        seen = simulator.calls()[-1]
        assert {k: v or 0 for k, v in reply.tokens.items()} == seen["tokens"]
        counted = "input_audio" if media_type.startswith("audio/") else "input_uncached"
        assert (reply.tokens[counted] or 0) > (plain.tokens[counted] or 0)  # type: ignore[literal-required]


@pytest.mark.parametrize(("name", "media_type"), MEDIA)
def test_media_that_are_not_what_they_say_are_refused_by_the_provider(
    simulator: Simulator, name: str, media_type: str
) -> None:
    """The provider's own refusal of a broken file arrives as one, unpaid."""
    broken = {**medium(media_type), "data": b"not at all"}
    failure = failed(ask(settings_of(name, simulator.url), conversation(name, turn("user", broken))))  # type: ignore[arg-type]
    assert (failure.error["code"], failure.error["provider_status"], failure.charged) == (
        "provider_invalid_request",
        400,
        "no",
    )


@every_provider
def test_what_a_provider_does_not_take_is_refused_unsent(simulator: Simulator, name: str) -> None:
    """The refusal names the provider, and nobody is called."""
    part = medium("image/gif") if name == "google" else medium("audio/mpeg", url="https://example.com/it")
    failure = failed(ask(settings_of(name, simulator.url), conversation(name, turn("user", part))))
    assert (failure.error["code"], failure.charged) == ("caller_unsupported_feature", "no")
    assert name in failure.error["message"]
    assert simulator.calls() == []


@every_provider
@pytest.mark.parametrize("choice", ["required", "weather", "none"])
def test_a_tool_is_called_and_its_result_answered(simulator: Simulator, name: str, choice: str) -> None:
    """The choice of tool is kept to; the call's arguments follow its schema, and with its result the model answers in words."""
    question = turn("user", text_part("How is the weather in Rome?"))
    other = Tool(name="time", description=None, parameters='{"type":"object","properties":{}}')
    offered = [WEATHER, other] if choice == "required" else [other, WEATHER]
    reply = ask(settings_of(name, simulator.url), conversation(name, question, tools=offered, tool_choice=choice))
    assert isinstance(reply, Reply), reply
    if choice == "none":
        assert [part["type"] for part in reply.output] == ["text"]
        return
    assert reply.finish_reason == "tool_calls"
    [part] = reply.output
    assert part["tool_name"] == "weather"
    assert list(json.loads(part["tool_arguments"] or "")) == ["city"]
    answered = [turn("assistant", part), turn("tool", tool_result(part["tool_call_id"] or "", "Sunny."))]
    assert problem_of(conversation(name, question, *answered, tools=offered)["request"], 1, 2) is None
    reply = ask(settings_of(name, simulator.url), conversation(name, question, *answered, tools=[WEATHER]))
    assert isinstance(reply, Reply), reply
    assert [part["type"] for part in reply.output] == ["text"]


@every_provider
def test_a_tool_call_as_told_arrives_as_it_is(simulator: Simulator, name: str) -> None:
    """The arguments that a model makes up arrive untouched, as JSON in text."""
    arguments = {"city": "Sankt Gallen", "days": [1, 2], "über": None}
    told = {"tool_call": {"name": "weather", "arguments": arguments}}
    reply = ask(settings_of(name, simulator.url), llm_call(name, directive=told))
    assert isinstance(reply, Reply), reply
    assert json.loads(reply.output[0]["tool_arguments"] or "") == arguments


@every_provider
def test_a_call_without_its_result_is_refused_by_the_provider(simulator: Simulator, name: str) -> None:
    """Tool calls that nobody answered are refused in the provider's own words."""
    turns = [turn("user", text_part("Hi.")), turn("assistant", tool_call()), turn("user", text_part("And?"))]
    failure = failed(ask(settings_of(name, simulator.url), conversation(name, *turns, tools=[WEATHER])))
    assert (failure.error["code"], failure.charged) == ("provider_invalid_request", "no")
