"""What routing looks at in a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from core.estimate import characters, input_tokens, needs
from core.registry import Capability
from schemas.events import LlmRequest


@dataclass(frozen=True, slots=True)
class Asked:
    """What routing looks at in a request; `now` in microseconds since 1970."""

    request_id: str
    now: int
    model: str | None = None
    plan: str | None = None
    task: str | None = None
    tenant: str = "default"
    user: str | None = None
    project: str | None = None
    priority: Literal["interactive", "batch"] = "interactive"
    needs: frozenset[Capability] = frozenset({"text"})
    input_tokens: int = 0
    max_output_tokens: int = 0
    max_cost_nano_usd: int | None = None
    characters: int = 0
    #: The programming language of the texts, where they are code.
    language: str | None = None


def asked(request: LlmRequest, max_output_tokens: int, now: int) -> Asked:
    """What routing looks at in this request; `max_output_tokens` is its own limit or the deployment's."""
    return Asked(
        request_id=request["request_id"], now=now, model=request["model"], plan=request["plan"], task=request["task"],
        tenant=request["tenant"], user=request["user"], project=request["project"], priority=request["priority"],
        needs=needs(request), input_tokens=input_tokens(request), max_output_tokens=max_output_tokens,
        max_cost_nano_usd=request["max_cost_nano_usd"], characters=characters(request),
        language=request["tags"].get("language"),
    )  # fmt: skip
