"""What routing looks at in a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from core.estimate import characters, input_tokens, needs
from core.registry import Capability, Model
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
    #: Whether `max_output_tokens` is the deployment's, before which a model's own default comes.
    no_limit: bool = False
    max_cost_nano_usd: int | None = None
    characters: int = 0
    #: The programming language of the texts, where they are code.
    language: str | None = None

    def output_tokens(self, model: Model) -> int:
        """The most that this model may write: the request's limit, else the model's default, else the deployment's."""
        return (self.no_limit and model.default_output_tokens) or self.max_output_tokens


def asked(request: LlmRequest, default_output: int, now: int) -> Asked:
    """What routing looks at in this request; `default_output` is the deployment's for one without a limit of its own."""
    limit = request["parameters"]["max_output_tokens"]
    return Asked(
        request_id=request["request_id"], now=now, model=request["model"], plan=request["plan"], task=request["task"],
        tenant=request["tenant"], user=request["user"], project=request["project"], priority=request["priority"],
        needs=needs(request), input_tokens=input_tokens(request), max_output_tokens=limit or default_output, no_limit=limit is None,
        max_cost_nano_usd=request["max_cost_nano_usd"], characters=characters(request),
        language=request["tags"].get("language"),
    )  # fmt: skip
