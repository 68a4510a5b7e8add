"""Which requests are equal for the response cache, and what is told of one that it answered."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any, cast

from core.facts import Attempt, refusal, usage
from schemas.events import LlmCall, LlmRequest, LlmResponse, LlmUsage

#: What does not change the answer, as every request has it for the cache.
SAME: dict[str, Any] = {
    "request_id": "", "user": None, "api_key_id": None, "project": None, "tags": {}, "plan": None, "created_at": 0,
    "deadline": None, "priority": "interactive", "cache": "use", "max_attempts": None, "max_cost_nano_usd": None,
    "on_unknown_outcome": "retry", "reply_topic": None, "stream": False, "input": None,
    "prompt_version": None, "on_limit": "refuse",
}  # fmt: skip
#: What the answer is taken over with; everything else is the request's own.
TAKEN = ("output", "finish_reason", "provider", "model", "response_model", "provider_response_id")


def canonical(request: LlmRequest, shared: bool) -> LlmRequest:
    """The request with nothing left but what its answer follows from, and its tenant unless the cache is `shared`."""
    return cast(LlmRequest, {**request, **SAME, "tenant": "" if shared else request["tenant"]})


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
    event_id = str(uuid.uuid5(uuid.UUID(request["request_id"]), "cached"))
    served = cast(LlmCall, {**call, "provider": kept["provider"], "model": kept["model"], "reserved_nano_usd": None})
    fact = {
        **usage(served, Attempt(event_id, 0, "cached", at), None, at, None),
        "adjusts": event_id, "status": "succeeded", "error_code": None, "cost_nano_usd": 0, "cost_status": "cached",
        "saved_nano_usd": saved_nano, "response_model": kept["response_model"],
        "total_us": max(0, at - request["created_at"]),
    }  # fmt: skip
    return Hit(cast(LlmResponse, answer), cast(LlmUsage, fact))
