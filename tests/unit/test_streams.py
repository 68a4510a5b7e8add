"""Streams put together again, without a network: events out of bytes, and answers out of events."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.providers import anthropic, google, openai
from agents.providers.anthropic_stream import EventAssembler
from agents.providers.google_stream import ResponseAssembler
from agents.providers.openai_stream import ChunkAssembler
from agents.providers.sse import Events
from agents.providers.streamed import Assembler, StreamBroke
from core.reply import Reply
from local.simulator.anthropic_messages import AnthropicMessages
from local.simulator.calls import Answer, Prompt, Tokens, Tool
from local.simulator.gemini import Gemini
from local.simulator.openai_chat import OpenAIChat
from local.simulator.streaming import SCRIPTS

APIS: dict[str, Any] = {"openai": openai, "anthropic": anthropic, "google": google}
DIALECTS = {"openai": OpenAIChat(), "anthropic": AnthropicMessages(), "google": Gemini()}
ASSEMBLERS: dict[str, type[Assembler]] = {
    "openai": ChunkAssembler, "anthropic": EventAssembler, "google": ResponseAssembler,
}  # fmt: skip
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def fed(assembler: Assembler, *events: dict[str, Any] | str) -> list[str]:
    """The texts that these events add to an answer."""
    added = [assembler.feed(event if isinstance(event, str) else json.dumps(event)) for event in events]
    return [text for text in added if text is not None]


def split(raw: bytes, sizes: list[int]) -> list[bytes]:
    """The bytes in pieces of these sizes, and the rest."""
    pieces: list[bytes] = []
    for size in sizes:
        pieces.append(raw[:size])
        raw = raw[size:]
    return [*pieces, raw]


@given(
    st.lists(st.sampled_from(["data: one", "data:", "data:  two", "☃", ": x", "event: x", "\n", "\r", "\r\n"])),
    st.lists(st.integers(0, 7)),
)
def test_events_do_not_depend_on_how_bytes_are_split(parts: list[str], sizes: list[int]) -> None:
    """The same bytes give the same events in any pieces, with any of the three line ends."""
    raw = "".join(parts).encode()
    once, again = Events(), Events()
    whole = once.feed(raw) + once.feed(b"\n\n")
    assert [data for piece in [*split(raw, sizes), b"\n\n"] for data in again.feed(piece)] == whole


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_events_are_read_as_the_standard_says(end: str) -> None:
    """Data lines of an event are joined, one space after the colon is none of it, and what is no data is left out."""
    lines = [
        ": hello",
        "event: x",
        "data: one",
        "data:  two",
        "id: 7",
        "",
        "",
        "data:three",
        "",
        "data: not ended",
        "x",
    ]
    assert Events().feed(end.join(lines).encode()) == ["one\n two", "three"]


def body_of(name: str, answer: Answer, prompt: Prompt) -> dict[str, Any]:
    """The answer as the API gives it when it does not stream."""
    return DIALECTS[name].answer(prompt, answer)


@pytest.mark.parametrize("name", SCRIPTS)
@given(
    text=st.text(min_size=1, max_size=60), arguments=st.none() | st.dictionaries(st.text(max_size=5), JSON_VALUES, max_size=4),
    finish=st.sampled_from(["stop", "length"]), read=st.integers(0, 10**9), made=st.integers(1, 10**9),
    sizes=st.lists(st.integers(0, 400), max_size=30),
)  # fmt: skip
def test_a_stream_in_any_pieces_is_the_whole_answer(
    name: str, text: str, arguments: dict[str, Any] | None, finish: Any, read: int, made: int, sizes: list[int]
) -> None:
    """Text and tool calls, finish and usage come out of any split of a stream as they do of the answer in one piece."""
    prompt = Prompt("model", "hello", stream_usage=True)
    answer = Answer(text, finish, Tokens(input_uncached=read, output_text=made))
    if arguments is not None:
        answer = replace(answer, text="", finish="tool", tool=Tool("look_up", {}), arguments=arguments)
    body = body_of(name, answer, prompt)
    script = SCRIPTS[name](prompt, answer, body)
    raw = script.opening + b"".join(script.pieces) + script.closing + script.end
    events, assembler, heard = Events(), ASSEMBLERS[name](), []
    for piece in split(raw, sizes):
        for data in events.feed(piece):
            assert not assembler.complete
            heard += fed(assembler, data)
    assert assembler.complete
    assert assembler.counted
    assert "".join(heard) == answer.text
    whole: Reply = APIS[name].translate_response(body)
    assert APIS[name].translate_response(assembler.body()) == whole
    assert APIS[name].usage_of(assembler.reported()) == whole.tokens
    assert APIS[name].terms_of(assembler.reported()) == whole.terms


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_stream_without_its_last_event_is_not_complete(name: str) -> None:
    """However much of a stream has come: it is complete with its last event only."""
    prompt, answer = (
        Prompt("model", "hello", stream_usage=True),
        Answer("one two three", "stop", Tokens(3, output_text=3)),
    )
    script = SCRIPTS[name](prompt, answer, body_of(name, answer, prompt))
    events, assembler = Events(), ASSEMBLERS[name]()
    raw = script.opening + b"".join(script.pieces) + script.closing
    assert fed(assembler, *events.feed(raw)) == ["one", " two", " three"]
    assert not assembler.complete
    fed(assembler, *events.feed(script.end))
    assert assembler.complete


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("event", ['{"id": "x', "[1]", "7", '"text"', "null", "nothing"])
def test_what_is_no_event_is_refused(name: str, event: str) -> None:
    """Data that is no JSON object is an error, not an event to be passed over."""
    with pytest.raises(ValueError, match=r".+"):
        ASSEMBLERS[name]().feed(event)


@pytest.mark.parametrize("name", SCRIPTS)
def test_an_error_event_breaks_the_stream(name: str) -> None:
    """An event that holds an error is raised as such, with what it says."""
    with pytest.raises(StreamBroke) as broke:
        ASSEMBLERS[name]().feed('{"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}')
    assert broke.value.event["error"]["message"] == "Overloaded"


def chunk(delta: dict[str, Any], finish: str | None = None, **fields: Any) -> dict[str, Any]:
    """A chunk of OpenAI's."""
    return {"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **fields}


@pytest.mark.parametrize("indexed", [True, False])
def test_openai_tool_calls_side_by_side_stay_apart(indexed: bool) -> None:
    """Two calls in one answer keep their ids, names and arguments, also where the server leaves their indexes out."""

    def piece(index: int, arguments: str, **fields: Any) -> dict[str, Any]:
        name = {"name": fields.pop("name")} if "name" in fields else {}
        call = {**fields, "function": {**name, "arguments": arguments}} | ({"index": index} if indexed else {})
        return chunk({"tool_calls": [call]})

    assembler = ChunkAssembler()
    heard = fed(
        assembler, chunk({"role": "assistant", "content": None}), piece(0, "", id="a", name="first"), piece(0, '{"x":'),
        piece(0, "1}"), piece(1, "{}", id="b", name="second"), chunk({}, "tool_calls"), "[DONE]",
    )  # fmt: skip
    reply = openai.translate_response(assembler.body())
    assert heard == [""] * 4
    assert assembler.complete
    assert [(part["tool_call_id"], part["tool_name"], part["tool_arguments"]) for part in reply.output] == [
        ("a", "first", '{"x":1}'), ("b", "second", "{}"),
    ]  # fmt: skip


def test_openai_usage_on_the_way_counts_at_the_end_only() -> None:
    """A server that tells its usage in each chunk has told the whole only with the finish reason."""
    assembler = ChunkAssembler()
    fed(assembler, chunk({"content": "Hi"}, usage={"prompt_tokens": 3, "completion_tokens": 1}))
    assert not assembler.counted
    assert openai.usage_of(assembler.reported())["output_text"] == 1
    fed(assembler, chunk({}, "stop", usage={"prompt_tokens": 3, "completion_tokens": 2}), "[DONE]")
    assert assembler.counted
    assert openai.usage_of(assembler.body())["output_text"] == 2


def test_openai_done_without_a_finish_reason_is_no_end() -> None:
    """The mark at the end does not make an answer whole whose choice never finished."""
    assembler = ChunkAssembler()
    assert fed(assembler, chunk({"content": "Hi"}), "[DONE]") == ["Hi"]
    assert not assembler.complete


def test_openai_usage_that_is_never_told_is_unknown() -> None:
    """A complete stream of a server that tells no usage is an answer whose tokens nobody knows."""
    assembler = ChunkAssembler()
    fed(assembler, chunk({"content": "Hi"}), chunk({}, "stop"), "[DONE]")
    reply = openai.translate_response(assembler.body())
    assert assembler.complete
    assert not assembler.counted
    assert set(reply.tokens.values()) == {None}


def gemini(*parts: dict[str, Any], **candidate: Any) -> dict[str, Any]:
    """A partial response of Gemini's with these parts."""
    return {"candidates": [{"content": {"role": "model", "parts": list(parts)}, **candidate}], "modelVersion": "gemini"}


def block(kind: str, **fields: Any) -> dict[str, Any]:
    """An event about the first block of a message of Anthropic's."""
    return {"type": f"content_block_{kind}", "index": 0, **fields}


BLOCK = block("start", content_block={"type": "text", "text": ""})
ADVANCING = [
    ("openai", True, [
        chunk({"content": "Hi"}), chunk({"reasoning_content": "Hm."}), chunk({"refusal": "No."}), chunk({}, "stop"),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": "{"}}]}), chunk({}, usage={"total_tokens": 3}), "[DONE]",
    ]),
    ("openai", False, [chunk({}), chunk({"role": "assistant", "content": ""}), {"id": "c", "choices": [], "usage": None}]),
    ("anthropic", True, [
        BLOCK, block("delta", delta={"type": "thinking_delta", "thinking": "Hm."}),
        block("delta", delta={"type": "signature_delta", "signature": "s"}),
        block("delta", delta={"type": "text_delta", "text": "Hi"}), block("stop"),
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}, {"type": "message_stop"},
    ]),
    ("anthropic", False, [{"type": "ping"}, {"type": "what_is_yet_to_come"}]),
    ("google", True, [
        gemini({"text": "Hi"}), gemini({"text": "Hm.", "thought": True}), gemini({"functionCall": {"name": "x", "args": {}}}),
        gemini({"text": ""}, finishReason="STOP"),
    ]),
    ("google", False, [gemini(), gemini({"text": ""}), gemini({"text": "", "thought": True}), {"usageMetadata": {}}]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "advances", "events"), ADVANCING)
def test_text_tools_thinking_and_the_end_advance_an_answer_and_a_sign_of_life_does_not(
    name: str, advances: bool, events: list[dict[str, Any] | str]
) -> None:
    """What a stalled stream sends to stay open is told from what a slow one has to say."""
    assembler, after = ASSEMBLERS[name](), []
    for event in events:
        fed(assembler, event)
        after.append(assembler.advanced)
    assert after == [advances] * len(events)


def anthropic_events() -> list[dict[str, Any]]:
    """A message with thinking, text and the call of a tool."""
    usage = {"input_tokens": 25, "cache_read_input_tokens": 5, "output_tokens": 1, "service_tier": "standard"}
    message = {
        "id": "msg",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": [],
        "stop_reason": None,
    }
    return [
        {"type": "message_start", "message": message | {"usage": usage}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}},
        {"type": "ping"},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Hm."}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "s"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "I look "}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "it up."}},
        {"type": "content_block_stop", "index": 1},
        {"type": "content_block_start", "index": 2,
         "content_block": {"type": "tool_use", "id": "toolu", "name": "look_up", "input": {}}},
        {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": '{"what": '}},
        {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": '"sky"}'}},
        {"type": "content_block_stop", "index": 2},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": None}, "usage": {"output_tokens": 89}},
        {"type": "message_stop"},
    ]  # fmt: skip


def test_anthropic_blocks_become_text_and_tool_calls() -> None:
    """Thinking is no part of the answer, text and tool calls are, and what was read is counted with what was said."""
    assembler = EventAssembler()
    assert fed(assembler, *anthropic_events()) == ["I look ", "it up.", "", ""]
    reply = anthropic.translate_response(assembler.body())
    assert [(part["type"], part["text"], part["tool_arguments"]) for part in reply.output] == [
        ("text", "I look it up.", None), ("tool_call", None, '{"what":"sky"}'),
    ]  # fmt: skip
    assert (reply.tokens["input_uncached"], reply.tokens["cache_read"], reply.tokens["output_text"]) == (25, 5, 89)
    assert reply.finish_reason == "tool_calls"


def test_anthropic_output_is_unknown_until_the_end() -> None:
    """Before `message_delta` what was read is known, and the count of what was said is not the one of the start."""
    assembler, events = EventAssembler(), anthropic_events()
    fed(assembler, *events[:-2])
    tokens = anthropic.usage_of(assembler.reported())
    assert not assembler.counted
    assert (tokens["input_uncached"], tokens["cache_read"], tokens["output_text"]) == (25, 5, None)
    fed(assembler, events[-2])
    assert assembler.counted
    assert not assembler.complete
    assert anthropic.usage_of(assembler.reported())["output_text"] == 89


def test_anthropic_counts_that_are_null_at_the_end_are_those_of_the_start() -> None:
    """The API's description allows null there (https://docs.anthropic.com/en/api/messages-streaming): what was read stays known."""
    assembler, events = EventAssembler(), anthropic_events()
    nulls = {"input_tokens": None, "cache_read_input_tokens": None, "output_tokens": 7}
    fed(assembler, *events[:-2], {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": nulls})
    tokens = anthropic.usage_of(assembler.reported())
    assert (tokens["input_uncached"], tokens["cache_read"], tokens["output_text"]) == (25, 5, 7)


def response(text: str | None = None, **candidate: Any) -> dict[str, Any]:
    """A partial response of Gemini's."""
    content = {"content": {"role": "model", "parts": [{"text": text}]}} if text is not None else {}
    return {"candidates": [candidate | content], "modelVersion": "gemini", "responseId": "r"}


def test_gemini_thoughts_are_no_text_and_usage_is_the_last_told() -> None:
    """Thoughts are passed over, each response replaces the usage before it, and the finish reason is the end."""
    assembler = ResponseAssembler()
    thought = {"candidates": [{"content": {"parts": [{"text": "Hm.", "thought": True}]}}]}
    heard = fed(
        assembler, thought, response("Blue") | {"usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 1}},
        response(", mostly.", finishReason="STOP") | {"usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 4}},
    )  # fmt: skip
    reply = google.translate_response(assembler.body())
    assert heard == ["Blue", ", mostly."]
    assert [part["text"] for part in reply.output] == ["Blue, mostly."]
    assert assembler.complete
    assert assembler.counted
    assert reply.tokens["output_text"] == 4


def test_gemini_a_finish_without_usage_is_not_counted() -> None:
    """Usage that came before the end only is what was used until then, not what the call used."""
    assembler = ResponseAssembler()
    fed(assembler, response("Blue") | {"usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 1}})
    fed(assembler, response(finishReason="STOP"))
    assert assembler.complete
    assert not assembler.counted


def test_gemini_a_blocked_prompt_is_an_end() -> None:
    """A prompt that is blocked has no candidate, and its stream is complete all the same."""
    assembler = ResponseAssembler()
    fed(assembler, {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 7}})
    assert assembler.complete
    with pytest.raises(Exception, match="blockReason is SAFETY"):
        google.translate_response(assembler.body())
