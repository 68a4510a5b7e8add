"""Which requests are equal for the response cache, and what is told of one that it answered."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, cast

from core.facts import Attempt, refusal, usage
from core.ids import derived
from schemas.events import ContentPart, LlmCall, LlmRequest, LlmResponse, LlmUsage

#: What does not change the answer.
IGNORED = (
    "request_id", "user", "api_key_id", "project", "tags", "plan", "created_at", "deadline", "priority", "cache", "max_attempts",
    "max_cost_nano_usd", "on_unknown_outcome", "reply_topic", "stream", "input", "prompt_version", "on_limit",
)  # fmt: skip
#: A string of JSON, or blanks between its other parts.
_STRING_OR_BLANKS = re.compile(r'("(?:[^"\\]|\\.)*")|\s+')
#: What the answer is taken over with; everything else is the request's own.
TAKEN = ("output", "finish_reason", "provider", "model", "response_model", "provider_response_id")


def canonical(request: LlmRequest, shared: bool) -> LlmRequest:
    """The request with its JSON texts as every client would write them, and without its tenant where the cache is `shared`.

    The order of their fields stays: models write the fields of an answer in the order of its schema
    (https://platform.openai.com/docs/guides/structured-outputs#key-ordering).
    """
    parameters, tools, options = request["parameters"], request["tools"], request["provider_options"]
    found = {
        "tenant": "" if shared else request["tenant"],
        "parameters": {**parameters, "response_format": _without_blanks(parameters["response_format"])},
        "tools": [{**tool, "parameters": _without_blanks(tool["parameters"])} for tool in tools],
        "provider_options": {name: _without_blanks(value) for name, value in options.items()},
        "messages": [{**each, "content": [*map(_part, each["content"])]} for each in request["messages"]],
    }
    return cast(LlmRequest, {**request, **found})


def _part(part: ContentPart) -> ContentPart:
    arguments = part["tool_arguments"]
    return part if arguments is None else {**part, "tool_arguments": _without_blanks(arguments)}


def _without_blanks(text: str | None) -> str | None:
    """JSON in text without the blanks that say nothing; what is none as it is."""
    try:
        json.loads(text or "")
    except (ValueError, RecursionError):
        return text
    return _STRING_OR_BLANKS.sub(r"\1", text or "")


@dataclass(frozen=True, slots=True)
class Hit:
    """A request that the response cache answered: its answer, and the usage event of a call that was not made."""

    answer: LlmResponse
    usage: LlmUsage


def hit(call: LlmCall, kept: LlmResponse, saved_nano: int | None, at: int) -> Hit:
    """What is told of a request to which an earlier answer is given, which had cost `saved_nano`; `at` in microseconds.

    The usage event adjusts itself, so that it counts as no call; it costs nothing. Another tenant's request is not named.
    """
    request = call["request"]
    own = kept["tenant"] == request["tenant"]
    answer = {
        **refusal(request, "completed", None, at),
        **{name: cast(dict[str, Any], kept)[name] for name in TAKEN},
        "cost_status": "cached", "admitted_at": call["admitted_at"], "route": call["route"], "decisions": call["decisions"],
        "complexity": call["complexity"], "prompt_version": call["prompt_version"],
        "cached_from": kept["request_id"] if own else "shared", "unchecked": call["unchecked"],
    }  # fmt: skip
    event_id = derived(request["request_id"], "cached")
    served = cast(LlmCall, {**call, "provider": kept["provider"], "model": kept["model"], "reserved_nano_usd": None})
    fact = {
        **usage(served, Attempt(event_id, 0, "cached", at), None, at, None),
        "adjusts": event_id, "status": "succeeded", "error_code": None, "cost_nano_usd": 0, "cost_status": "cached",
        "saved_nano_usd": saved_nano, "response_model": kept["response_model"],
        "total_us": max(0, at - request["created_at"]),
    }  # fmt: skip
    return Hit(cast(LlmResponse, answer), cast(LlmUsage, fact))
