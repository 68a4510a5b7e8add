"""Chat Completions as a stream (https://platform.openai.com/docs/api-reference/chat-streaming)."""

from __future__ import annotations

from typing import Any

from local.simulator.calls import Answer, Json, Prompt
from local.simulator.sse import Script, event, pieces_of

NOT_IN_CHUNKS = frozenset({"usage", "choices", "object"})


def script(prompt: Prompt, answer: Answer, body: Json) -> Script:
    """The chunks of this `chat.completion`; usage comes last, and only where `stream_options` asks for it."""
    shared = {"object": "chat.completion.chunk"} | {k: v for k, v in body.items() if k not in NOT_IN_CHUNKS}
    message, reason = body["choices"][0]["message"], body["choices"][0]["finish_reason"]

    def chunk(delta: Json, finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return event(shared | {"choices": [choice]} | ({"usage": None} if prompt.stream_usage else {}))

    first: dict[str, Any] = {"role": "assistant", "content": "", "refusal": None}
    if answer.tool:
        call = message["tool_calls"][0]
        opened = call | {"index": 0, "function": call["function"] | {"arguments": ""}}
        first = {"role": "assistant", "content": None, "tool_calls": [opened]}
        pieces: list[Json] = [
            {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} for piece in pieces_of(answer)
        ]
    else:
        pieces = [{"content": piece} for piece in pieces_of(answer)]
    usage = event(shared | {"choices": [], "usage": body["usage"]}) if prompt.stream_usage and "usage" in body else b""
    return Script(chunk(first), tuple(chunk(piece) for piece in pieces), chunk({}, reason) + usage, b"data: [DONE]\n\n")
