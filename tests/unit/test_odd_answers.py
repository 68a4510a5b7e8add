"""Answers of providers with values of other types than their documents say."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from agents.providers import anthropic, google, openai
from agents.providers.openai_stream import ChunkAssembler
from core.facts import Attempt, response
from core.reply import Reply
from schemas.codec import Codec
from tests.contract.calling import llm_call

CODEC = Codec()
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"a":1}'}}
USED = {"prompt_tokens": 3, "completion_tokens": 2}


def chat(**message: Any) -> dict[str, Any]:
    """A `chat.completion` with this message."""
    return {"id": "r1", "model": "m", "choices": [{"message": message, "finish_reason": "stop"}], "usage": USED}


def claude(*content: Any, **more: Any) -> dict[str, Any]:
    """A `message` with these blocks."""
    return {"id": "r1", "model": "m", "content": list(content), "stop_reason": "end_turn", "usage": {}} | more


def gemini(*parts: Any, **more: Any) -> dict[str, Any]:
    """A `GenerateContentResponse` with these parts."""
    return {"candidates": [{"content": {"parts": list(parts)}, "finishReason": "STOP"}], "responseId": "r1"} | more


def encoded(reply: Reply) -> Any:
    """The answer as it comes out of an event."""
    answer = response(llm_call("openai"), "completed", 1, attempt=Attempt("a", 1, "first", 0), reply=reply, spent=[])
    return CODEC.decode("LlmResponse", CODEC.encode("LlmResponse", answer))


@pytest.mark.parametrize(
    ("translate", "body", "text", "call"),
    [
        (openai.translate_response, chat(content=None, tool_calls=[CALL | {"function": {"name": "look", "arguments": {"a": 1}}}]),
         None, ("c1", '{"a":1}')),
        (openai.translate_response, chat(content=None, tool_calls=[CALL | {"id": 7}]), None, ("7", '{"a":1}')),
        (openai.translate_response, chat(content="hi") | {"id": 12, "model": {"name": "m"}}, "hi", None),
        (openai.translate_response,
         chat(content=[{"type": "thinking", "thinking": []}, {"type": "text", "text": "h"}, {"type": "text", "text": "i"}]), "hi", None),
        (openai.translate_response, chat(content="hi") | {"usage": {"prompt_tokens": 2**64 - 1, "completion_tokens": 1}}, "hi", None),
        (anthropic.translate_response, claude({"type": "text", "text": "hi"}, id=5, model=4.5), "hi", None),
        (google.translate_response, gemini({"text": "hi"}, responseId=9, modelVersion=["m"]), "hi", None),
    ],
)  # fmt: skip
def test_what_can_be_understood_is_an_answer(
    translate: Callable[[Any], Reply], body: Any, text: str | None, call: tuple[str, str] | None
) -> None:
    """It fits into an event: ids as text, arguments as JSON, a text in parts as one; a count that no call has is not known."""
    reply = translate(body)
    assert encoded(reply)["outcome"] == "completed"
    [part] = reply.output
    assert part["text"] == text
    assert (part["tool_call_id"], part["tool_arguments"]) == (call or (None, None))
    assert reply.tokens["input_uncached"] != 2**64 - 1


@pytest.mark.parametrize(
    ("translate", "body"),
    [
        (openai.translate_response, chat(content={"text": "hi"})),
        (openai.translate_response, chat(content=7)),
        (openai.translate_response, chat(content=None, tool_calls=[CALL | {"function": {"name": 3, "arguments": "{}"}}])),
        (openai.translate_response, chat(content=None, tool_calls=[CALL | {"function": {"name": "look", "arguments": [1]}}])),
        (anthropic.translate_response, claude({"type": "text", "text": None})),
        (anthropic.translate_response, claude({"type": "tool_use", "id": "c", "name": None, "input": {}})),
        (google.translate_response, gemini({"text": 3})),
        (google.translate_response, gemini({"functionCall": {"name": 3}})),
    ],
)  # fmt: skip
def test_what_cannot_is_told_by_its_type(translate: Callable[[Any], Reply], body: Any) -> None:
    """Which makes it a bad answer, accounted for, and tried again or elsewhere; the value itself is not repeated."""
    with pytest.raises(TypeError, match=r"of type (dict|int|NoneType|list)$"):
        translate(body)


def test_a_stream_of_parts_reads_as_the_whole_answer_does() -> None:
    """Texts in parts and arguments as an object come together to the same answer."""
    assembler = ChunkAssembler()
    deltas: list[Any] = [
        {"content": [{"type": "text", "text": "h"}]}, {"content": "i"},
        {"tool_calls": [CALL | {"index": 0, "function": {"name": "look", "arguments": {"a": 1}}}]},
    ]  # fmt: skip
    said = [assembler.feed(json.dumps({"choices": [{"index": 0, "delta": delta}]})) for delta in deltas]
    assert said == ["h", "i", ""]
    assembler.feed(json.dumps({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}))
    text, call = openai.translate_response(assembler.body()).output
    assert (text["text"], call["tool_arguments"]) == ("hi", '{"a":1}')
