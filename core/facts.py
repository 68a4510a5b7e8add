"""The events that state what happened: the usage of one provider call, the answer to one request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from core.admission import provider_and_model
from core.errors import ProviderError
from core.pricing import NOT_KNOWN, NOTHING_CHARGED, Cost, Price, cost_of, total_cost
from core.reply import NO_TOKENS, Reply
from schemas.events import (
    AttemptReason,
    CallStatus,
    CostStatus,
    Error,
    LlmCall,
    LlmRequest,
    LlmResponse,
    LlmUsage,
    Outcome,
)  # fmt: skip

#: Begins the price source of a call that the provider charges for by prices that are not known, before what these are.
NO_PRICE = "no price: "

WHO = ("tenant", "user", "api_key_id", "project", "tags", "task", "plan")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One provider call as it was begun; of a streamed answer when its first piece came, and how many characters did.

    Times are microseconds since 1970.
    """

    attempt_id: str
    number: int
    reason: AttemptReason
    started_at: int
    first_token_at: int | None = None
    received_chars: int | None = None


@dataclass(frozen=True, slots=True)
class Spent:
    """What one call of a request cost and how far that is known."""

    cost_nano_usd: int | None
    cost_status: CostStatus


def who(request: LlmRequest) -> dict[str, Any]:
    """Whom a request is charged to and what it was for; these fields stand on every fact."""
    event = cast(Mapping[str, Any], request)
    return {name: event[name] for name in WHO}


def _result(result: Reply | ProviderError | None) -> tuple[CallStatus, Error | None, Reply | None]:
    if result is None:
        return "outcome_unknown", None, None
    if isinstance(result, ProviderError):
        return "failed", result.error, result.reply
    return "succeeded", None, result


def _cost(result: Reply | ProviderError | None, reply: Reply | None, price: Price | None) -> Cost:
    if reply is not None and reply.counted:
        return cost_of(reply.tokens, None if reply.terms else price)
    if isinstance(result, ProviderError) and result.charged == "no":
        return NOTHING_CHARGED
    return NOT_KNOWN


def usage(
    call: LlmCall, attempt: Attempt, result: Reply | ProviderError | None, finished_at: int, price: Price | None
) -> LlmUsage:
    """The accounting fact of one provider call; `result` is None for a call that a crash cut off."""
    request = call["request"]
    status, failure, reply = _result(result)
    cost = _cost(result, reply, price)
    terms = reply.terms if reply else None
    ended = result is not None
    first = attempt.first_token_at
    fact: dict[str, Any] = dict(
        attempt_id=attempt.attempt_id,
        request_id=request["request_id"],
        **who(request),
        provider=call["provider"],
        model=call["model"],
        response_model=reply.response_model if reply else None,
        provider_response_id=reply.provider_response_id if reply else None,
        attempt=attempt.number,
        reason=attempt.reason,
        adjusts=None,
        status=status,
        error_code="provider_outcome_unknown" if result is None else failure["code"] if failure else None,
        provider_status=failure["provider_status"] if failure else None,
        tokens=reply.tokens if reply else NO_TOKENS,
        costs=cost.by_class,
        cost_nano_usd=cost.total,
        cost_status=cost.status,
        reserved_nano_usd=call["reserved_nano_usd"],
        price_source=f"{NO_PRICE}{terms}" if terms else price.source if price else None,
        price_date=price.day if price and not terms else None,
        provider_usage=reply.provider_usage if reply else None,
        received_chars=attempt.received_chars,
        queue_us=max(0, attempt.started_at - request["created_at"]),
        first_token_us=None if first is None else max(0, first - attempt.started_at),
        provider_us=finished_at - attempt.started_at if ended else None,
        total_us=max(0, finished_at - request["created_at"]) if ended else None,
        created_at=request["created_at"],
        admitted_at=call["admitted_at"],
        started_at=attempt.started_at,
        first_token_at=first,
        finished_at=finished_at,
        route=call["route"],
        prompt_version=call["prompt_version"],
        credential_id=None,
        credential_owner="platform",
        saved_nano_usd=None,
        unchecked=call["unchecked"],
    )
    return cast(LlmUsage, fact)


def response(
    call: LlmCall,
    outcome: Outcome,
    finished_at: int,
    *,
    attempt: Attempt | None = None,
    reply: Reply | None = None,
    failure: Error | None = None,
    spent: list[Spent],
) -> LlmResponse:
    """The answer to an admitted request; `spent` has one entry for each of its provider calls."""
    cost, cost_status = total_cost([(s.cost_nano_usd, s.cost_status) for s in spent])
    answer: dict[str, Any] = dict(
        refusal(call["request"], outcome, failure, finished_at),
        attempt_id=attempt.attempt_id if attempt else None,
        output=list(reply.output) if reply and outcome == "completed" else [],
        finish_reason=reply.finish_reason if reply else None,
        provider=call["provider"],
        model=call["model"],
        response_model=reply.response_model if reply else None,
        provider_response_id=reply.provider_response_id if reply else None,
        tokens=reply.tokens if reply else None,
        cost_nano_usd=cost,
        cost_status=cost_status,
        admitted_at=call["admitted_at"],
        started_at=attempt.started_at if attempt else None,
        first_token_at=attempt.first_token_at if attempt else None,
        attempts=len(spent),
        route=call["route"],
        decisions=call["decisions"],
        complexity=call["complexity"],
        prompt_version=call["prompt_version"],
        downgraded_from=call["downgraded_from"],
        near_limits=call["near_limits"],
        unchecked=call["unchecked"],
    )
    return cast(LlmResponse, answer)


def refusal(request: LlmRequest, outcome: Outcome, failure: Error | None, finished_at: int) -> LlmResponse:
    """The answer to a request for which no provider was called."""
    provider, model = provider_and_model(request["model"])
    answer: dict[str, Any] = dict(
        request_id=request["request_id"],
        attempt_id=None,
        **who(request),
        outcome=outcome,
        output=[],
        finish_reason=None,
        provider=provider or None,
        model=model or None,
        response_model=None,
        provider_response_id=None,
        error=failure,
        tokens=None,
        cost_nano_usd=0,
        cost_status="not_charged",
        created_at=request["created_at"],
        admitted_at=None,
        started_at=None,
        first_token_at=None,
        finished_at=finished_at,
        attempts=0,
        route=None,
        decisions=[],
        complexity=None,
        prompt_version=None,
        cached_from=None,
        downgraded_from=None,
        near_limits=[],
        unchecked=False,
    )
    return cast(LlmResponse, answer)


def undecodable(request_id: str, failure: Error, at: int) -> LlmResponse:
    """The answer to a record that names a request and is none, or is not believed; whose it was is not known."""
    nobody = dict.fromkeys(WHO) | {"tenant": "default", "tags": {}}
    request = {"request_id": request_id, "model": None, "created_at": at, **nobody}
    return refusal(cast(LlmRequest, request), "refused", failure, at)
