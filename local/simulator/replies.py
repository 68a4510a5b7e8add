"""What to answer to one call, decided before anything is sent."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate
from typing import Literal

import orjson

from local.simulator.account import Outcome
from local.simulator.answers import answer, fingerprint
from local.simulator.calls import NO_TOKENS, NO_WAIT, Answer, Json, Prompt, Refused, Tokens, Wait
from local.simulator.dialect import Dialect
from local.simulator.directives import ORDINARY, Directive, Directives
from local.simulator.prices import cost_nano_usd
from local.simulator.sse import event
from local.simulator.streaming import Stream

GARBAGE = b"<html><head><title>upstream</title></head><body>\xff\xfe no JSON here </body>"


@dataclass(slots=True)
class Reply:
    """An HTTP answer, the way it goes out, and what it counts as once it has."""

    status: int
    headers: dict[str, str]
    body: bytes
    outcome: Outcome
    latency_ms: float
    manner: Literal["whole", "truncated", "reset", "hang"] = "whole"
    model: str | None = None
    tokens: Tokens = NO_TOKENS
    cost_nano_usd: int | None = 0
    stream: Stream | None = None


def reply(
    dialect: Dialect,
    directives: Directives,
    headers: Mapping[str, str],
    query: Mapping[str, str],
    raw: bytes,
    path_model: str | None,
    latency_ms: float,
) -> Reply:
    """The reply to a request of this dialect; `latency_ms` holds where the request asks for no other."""
    request_id = dialect.request_id()
    prompt: Prompt | None = None
    directive = ORDINARY
    try:
        dialect.authenticate(headers, query)
        prompt = _read(dialect, headers, raw, path_model)
        if prompt.streamed and dialect.provider == "google" and query.get("alt") != "sse":
            raise Refused(400, "The simulator streams server-sent events only; add alt=sse.")
        directive = directives.of(dialect.provider, prompt)
        if unreported := dialect.unreported & {name for name, count in directive.usage.items() if count}:
            raise Refused(400, f"The simulator cannot report {sorted(unreported)}: this API has no field for it.")
        if directive.latency_ms is not None:
            latency_ms = directive.latency_ms
        if directive.status is not None and directive.fault is None:
            raise dialect.injected(directive.status, prompt, directive.wait)
        made = answer(prompt, directive, fingerprint(prompt))
        if directive.context_tokens is not None and made.tokens.input_total > directive.context_tokens:
            raise dialect.too_long(made.tokens.input_total, directive.context_tokens)
    except Refused as refused:
        wait = directive.wait if directive.status is not None else NO_WAIT
        body = dialect.failure(refused, wait, request_id)
        sent = dialect.headers(request_id, latency_ms) | _wait_headers(wait)
        return Reply(
            refused.status, sent, orjson.dumps(body), "error", latency_ms, model=prompt.model if prompt else None
        )
    return _answered(dialect, prompt, directive, made, request_id, latency_ms)


def _answered(
    dialect: Dialect, prompt: Prompt, directive: Directive, made: Answer, request_id: str, latency_ms: float
) -> Reply:
    sent = dialect.headers(request_id, latency_ms)
    body = dialect.answer(prompt, made)
    result = Reply(200, sent, orjson.dumps(body), "garbled", latency_ms, model=prompt.model)
    if prompt.streamed and directive.fault in (None, "refusal"):
        named = "error" if dialect.provider == "anthropic" else None
        overloaded = dialect.failure(dialect.injected(529 if named else 503, prompt, NO_WAIT), NO_WAIT, request_id)
        broken = event(overloaded, named)
        result.stream = Stream(dialect.provider, prompt, made, body, directive.pace, broken)
        return result
    match directive.fault:
        case None | "refusal" | "off_schema":
            result.outcome, result.tokens = "answered", made.tokens
            result.cost_nano_usd = cost_nano_usd(dialect.provider, prompt.model, made.tokens)
        case "garbage":
            result.body = GARBAGE
        case "empty_choices":
            result.body = orjson.dumps(dialect.nothing(prompt))
        case "error_in_200":
            refused = dialect.injected(directive.status or 500, prompt, directive.wait)
            result.body = orjson.dumps(dialect.failure(refused, directive.wait, request_id))
        case "truncated":
            result.manner = "truncated"
        case "reset":
            result.manner, result.outcome = "reset", "cut_off"
        case "hang":
            result.manner, result.outcome = "hang", "cut_off"
    return result


def _read(dialect: Dialect, headers: Mapping[str, str], raw: bytes, path_model: str | None) -> Prompt:
    try:
        body: Json = orjson.loads(raw)
        return dialect.read(headers, body, path_model)
    except orjson.JSONDecodeError as error:
        raise Refused(400, f"We could not parse the JSON body of your request: {error}") from None
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise Refused(400, f"The request's body has not the form of this API: {error!r}") from None


def _wait_headers(wait: Wait) -> dict[str, str]:
    headers: dict[str, str] = {}
    if wait.ms is not None:
        headers["retry-after-ms"] = f"{wait.ms:g}"
    if wait.seconds is not None:
        headers["retry-after"] = f"{wait.seconds:g}"
    elif wait.date is not None:
        # A date has whole seconds only, and one that is rounded down would ask for too short a wait.
        headers["retry-after"] = formatdate(math.ceil(time.time() + wait.date), usegmt=True)
    return headers
