"""Anthropic's Messages API in Millstream's terms (https://docs.anthropic.com/en/api/messages)."""

from __future__ import annotations

import logging
from typing import Any

import anthropic
import orjson

from agents.providers.anthropic_content import messages_of, tools_of
from agents.providers.anthropic_stream import STREAMING
from agents.providers.base import (
    answer_schema,
    content_text,
    count,
    fields,
    identifier,
    less,
    system_text,
    terms_text,
    tool_call_part,
    unlike,
    usage_json,
    used_only,
    with_options,
)
from agents.providers.exchange import Api, HttpProvider
from agents.providers.parts import refuse_unsupported
from agents.providers.posting import LIMITS, AsBuilt, PostingSdk
from agents.providers.schemas import described
from config.settings import ProviderSettings
from core.errors import ProviderError, error
from core.reply import NO_TOKENS, Reply, text_part
from schemas.events import ContentPart, LlmCall, Tokens

RESERVED = frozenset({"model", "messages", "stream", "maxtokens"})
#: Anthropic's lowest effort is `low` (https://docs.anthropic.com/en/docs/build-with-claude/effort).
EFFORT = {"minimal": "low"}
FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
}


def translate_request(call: LlmCall) -> dict[str, Any]:
    """The body of `POST /v1/messages`; `ProviderError` for what the API cannot take."""
    refuse_unsupported(call, "anthropic")
    request, parameters = call["request"], call["request"]["parameters"]
    body: dict[str, Any] = {
        "model": call["model"],
        "max_tokens": call["max_output_tokens"],
        "messages": messages_of(request),
        **tools_of(request),
    }
    if (system := system_text(request["messages"])) is not None:
        body["system"] = system
    for name in ("temperature", "top_p"):
        if (value := parameters[name]) is not None:  # type: ignore[literal-required]
            body[name] = value
    if parameters["stop"]:
        body["stop_sequences"] = parameters["stop"]
    output: dict[str, Any] = {}
    if (effort := parameters["reasoning_effort"]) is not None:
        output["effort"] = EFFORT.get(effort, effort)
    if (schema := answer_schema(call)) is not None:
        output["format"] = {"type": "json_schema", "schema": described(schema)}
    if output:
        body["output_config"] = output
    return with_options(body, call, RESERVED)


def translate_response(body: dict[str, Any]) -> Reply:
    """The content of a `message`; `ProviderError` when the model refused.

    LookupError, TypeError or AttributeError when the body has another shape.
    """
    reason = body["stop_reason"]
    used = used_only(usage_of(body), body.get("usage"), body.get("model"), body.get("id"), terms_of(body))
    if reason == "refusal":
        said = fields(body.get("stop_details")).get("explanation") or "stop_reason is refusal"
        raise ProviderError(error("provider_content_refused", f"The model refused to answer: {said}"), "maybe", used)
    return Reply(
        output=tuple(part for block in body["content"] if (part := _part(block)) is not None),
        finish_reason=FINISH.get(reason, "other"),
        response_model=identifier(body.get("model")),
        provider_response_id=identifier(body.get("id")),
        tokens=usage_of(body),
        provider_usage=usage_json(body.get("usage")),
        terms=terms_of(body),
    )


def _part(block: dict[str, Any]) -> ContentPart | None:
    """The block as a part; None for thinking and for the traces of the provider's own tools, which are no answer."""
    if block["type"] == "text":
        return text_part(content_text(block["text"]))
    if block["type"] == "tool_use":
        return tool_call_part(block["id"], block["name"], orjson.dumps(block["input"]).decode())
    return None


def usage_of(body: dict[str, Any]) -> Tokens:
    """The tokens of a `message`.

    `input_tokens` excludes what was read from the cache and written to it; a write whose lifetime is not said is one of five
    minutes, the default (https://docs.anthropic.com/en/docs/build-with-claude/prompt-caching#tracking-cache-performance).
    `output_tokens` includes thinking, which newer models report apart.
    """
    usage = fields(body.get("usage"))
    written = fields(usage.get("cache_creation"))
    five_minutes = count(written.get("ephemeral_5m_input_tokens"))
    one_hour = count(written.get("ephemeral_1h_input_tokens"))
    if five_minutes is None and one_hour is None:
        five_minutes = count(usage.get("cache_creation_input_tokens"))
    thinking = count(fields(usage.get("output_tokens_details")).get("thinking_tokens"))
    return Tokens(
        **NO_TOKENS
        | {
            "input_uncached": count(usage.get("input_tokens")),
            "cache_read": count(usage.get("cache_read_input_tokens")),
            "cache_write_5m": five_minutes,
            "cache_write_1h": one_hour,
            "output_text": less(count(usage.get("output_tokens")), thinking),
            "reasoning": thinking,
        }
    )


def terms_of(body: dict[str, Any]) -> str | None:
    """What of a `message` has prices of its own: another service tier, fast mode, inference in one country, searches.

    https://platform.claude.com/docs/en/about-claude/pricing
    """
    usage = fields(body.get("usage"))
    return terms_text(
        unlike("service tier", usage.get("service_tier"), "standard"),
        unlike("speed", usage.get("speed"), "standard"),
        unlike("inference in", usage.get("inference_geo"), "global", "not_available"),
        "web search" if count(fields(usage.get("server_tool_use")).get("web_search_requests")) else None,
    )


# Below INFO the SDK writes down the headers and the body of every request, the key among them.
logging.getLogger("anthropic._base_client").addFilter(lambda record: record.levelno >= logging.INFO)

#: The SDK looks for keys in the environment when it gets none; every call has its own, and this one is never sent.
NO_KEY = "none"


def key_header(key: str) -> dict[str, str]:
    """The header that carries a key."""
    return {"X-Api-Key": key}


class _Client(AsBuilt, anthropic.DefaultAioHttpClient):
    pass


class AnthropicSdk(PostingSdk):
    """The `anthropic` SDK over aiohttp, handing bytes through."""

    def __init__(self, base_url: str | None) -> None:
        client = anthropic.AsyncAnthropic(
            api_key=NO_KEY, base_url=base_url, max_retries=0,
            http_client=_Client(limits=LIMITS),
        )  # fmt: skip
        super().__init__(client, "/v1/messages", anthropic.APIStatusError, anthropic.AsyncStream[Any])

    def _headers(self, headers: dict[str, str]) -> dict[str, Any]:
        # The SDK carries a key of its own as a bearer token.
        return {**headers, "Authorization": anthropic.Omit()}


def provider(settings: ProviderSettings) -> HttpProvider:
    """Anthropic; each call ends with `provider_auth` while there is no key."""
    return HttpProvider(settings, Api(
        translate_request, translate_response, usage_of, terms_of, STREAMING, key_header,
        lambda s: AnthropicSdk(s.base_url), (anthropic.APIError,),
    ))  # fmt: skip
