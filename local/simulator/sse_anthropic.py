"""Messages as a stream (https://docs.anthropic.com/en/docs/build-with-claude/streaming)."""

from __future__ import annotations

from local.simulator.calls import Answer, Json, Prompt
from local.simulator.sse import Script, event, pieces_of

#: What `message_start` knows of a message: that it began, with one token said.
BEGUN: Json = {"content": [], "stop_reason": None, "stop_sequence": None}
#: The counts that `message_delta` repeats, the output's as it stands at the end.
AT_THE_END = (
    "input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens", "output_tokens_details",
)  # fmt: skip


def script(prompt: Prompt, answer: Answer, body: Json) -> Script:
    """The events of this `message`: what was read is counted at the start, what was said at the end."""
    usage = body.get("usage")
    begun = {key: value for key, value in body.items() if key not in ("usage", "stop_details")} | BEGUN
    if usage is not None:
        begun["usage"] = {key: value for key, value in usage.items() if key != "output_tokens_details"} | {
            "output_tokens": 1
        }
    opening, closing = _event("message_start", message=begun) + _event("ping"), b""
    pieces: list[Json] = []
    for block in body["content"]:
        is_tool = block["type"] == "tool_use"
        empty: Json = {"input": {}} if is_tool else {"text": ""}
        opening += _event("content_block_start", index=0, content_block=block | empty)
        kind, field = ("input_json_delta", "partial_json") if is_tool else ("text_delta", "text")
        pieces = [{"type": kind, field: piece} for piece in pieces_of(answer)]
        closing = _event("content_block_stop", index=0)
    delta = {key: body[key] for key in ("stop_reason", "stop_sequence", "stop_details") if key in body}
    counted = {} if usage is None else {"usage": {key: usage[key] for key in AT_THE_END if key in usage}}
    closing += _event("message_delta", delta=delta, **counted)
    deltas = tuple(_event("content_block_delta", index=0, delta=piece) for piece in pieces)
    return Script(opening, deltas, closing, _event("message_stop"), _event("ping"))


def _event(name: str, **fields: object) -> bytes:
    return event({"type": name, **fields}, name)
