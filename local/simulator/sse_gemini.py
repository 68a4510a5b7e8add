"""`streamGenerateContent?alt=sse` (https://ai.google.dev/api/generate-content#method:-models.streamgeneratecontent)."""

from __future__ import annotations

from local.simulator.calls import Answer, Json, Prompt
from local.simulator.gemini import usage_metadata
from local.simulator.sse import Script, event, made_by, pieces_of


def script(prompt: Prompt, answer: Answer, body: Json) -> Script:
    """Responses with a part of the candidate each, and the usage so far; a tool call comes whole. The end is the finish reason."""
    candidate = body["candidates"][0]
    shared = {key: body[key] for key in ("modelVersion", "responseId")}
    parts = candidate["content"]["parts"] if answer.tool else [{"text": piece} for piece in pieces_of(answer)]

    def response(candidate: Json, made: int) -> bytes:
        usage = (
            {"usageMetadata": usage_metadata(made_by(answer.tokens, made, len(parts)))} if answer.usage_shown else {}
        )
        return event({"candidates": [candidate | {"index": 0}]} | usage | shared)

    pieces = (
        response({"content": {"parts": [part], "role": "model"}}, made) for made, part in enumerate(parts, start=1)
    )
    last = {key: value for key, value in candidate.items() if key != "content"}
    if "content" in candidate:
        last["content"] = {"parts": [{"text": ""}], "role": "model"}
    return Script(b"", tuple(pieces), b"", response(last, len(parts)))
