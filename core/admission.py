"""Whether a request can be served as it stands: the checks that need nothing but the request."""

from __future__ import annotations

import re
from collections.abc import Iterator

from core.conversation import invalid_messages, invalid_tools, json_of
from core.errors import error
from schemas.events import Error, LlmRequest, Parameters

EFFORTS = ("minimal", "low", "medium", "high")
LONGEST_LABEL = 256
MOST_OUTPUT_TOKENS = 10_000_000
UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def problem_of(request: LlmRequest, value_bytes: int, max_value_bytes: int) -> Error | None:
    """The first thing wrong with a request, as the error its caller gets, or None when it can be served."""
    if value_bytes > max_value_bytes:
        return error(
            "caller_invalid_request",
            f"The request has {value_bytes} bytes and the limit is {max_value_bytes}; send a shorter one.",
        )
    invalid = next(_invalid_fields(request), None)
    if invalid is not None:
        field, value, wanted = invalid
        return error("caller_invalid_request", f"Field {field} is {_shown(value)}; it must be {wanted}.")
    return None


def provider_and_model(asked: str | None) -> tuple[str, str]:
    """The two halves of `provider/model`; empty text for what is missing."""
    provider, _, model = (asked or "").partition("/")
    return provider, model


def _invalid_fields(request: LlmRequest) -> Iterator[tuple[str, object, str]]:
    if not UUID.fullmatch(request["request_id"]):
        yield "request_id", request["request_id"], "a UUID such as 0190163d-8694-739b-aea5-966c26f8ad91"
    if not request["tenant"]:
        yield "tenant", request["tenant"], "the name of a tenant"
    for name, label in (
        ("tenant", request["tenant"]), ("user", request["user"]), ("api_key_id", request["api_key_id"]),
        ("project", request["project"]), ("task", request["task"]), ("plan", request["plan"]), ("model", request["model"]),
        ("reply_topic", request["reply_topic"]),
    ):  # fmt: skip
        if label is not None and len(label) > LONGEST_LABEL:
            yield name, label, f"at most {LONGEST_LABEL} characters long"
        if label is not None and "\x00" in label:
            yield name, label, "free of NUL characters"
    if request["created_at"] <= 0:
        yield "created_at", request["created_at"], "a time after 1970"
    if request["max_attempts"] is not None and request["max_attempts"] < 1:
        yield "max_attempts", request["max_attempts"], "1 or more calls"
    if request["max_cost_nano_usd"] is not None and request["max_cost_nano_usd"] < 0:
        yield "max_cost_nano_usd", request["max_cost_nano_usd"], "0 or more nano-USD"
    if not request["messages"]:
        yield "messages", "empty", "at least one message"
    yield from invalid_messages(request["messages"])
    yield from invalid_tools(request)
    yield from _invalid_parameters(request["parameters"])


def _invalid_parameters(p: Parameters) -> Iterator[tuple[str, object, str]]:
    # `not low <= x <= high` is also true of NaN, which no provider takes.
    if p["temperature"] is not None and not 0 <= p["temperature"] <= 2:
        yield "parameters.temperature", p["temperature"], "from 0 to 2"
    if p["top_p"] is not None and not 0 < p["top_p"] <= 1:
        yield "parameters.top_p", p["top_p"], "above 0 and at most 1"
    if p["max_output_tokens"] is not None and not 0 < p["max_output_tokens"] <= MOST_OUTPUT_TOKENS:
        yield "parameters.max_output_tokens", p["max_output_tokens"], f"from 1 to {MOST_OUTPUT_TOKENS}"
    if p["reasoning_effort"] is not None and p["reasoning_effort"] not in EFFORTS:
        yield "parameters.reasoning_effort", p["reasoning_effort"], f"one of {', '.join(EFFORTS)}"
    if p["response_format"] is not None and not isinstance(json_of(p["response_format"]), dict):
        yield "parameters.response_format", p["response_format"], "a JSON schema in text, which is an object"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}… ({len(str(value))} characters)"
