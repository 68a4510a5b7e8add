"""OpenAI's Chat Completions API in Millstream's terms (https://platform.openai.com/docs/api-reference/chat).

Why this API and not Responses: docs/decisions/0002-openai-chat-completions.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import openai

from agents.providers.base import (
    answer_schema,
    content_text,
    count,
    fields,
    identifier,
    less,
    terms_text,
    tool_call_part,
    unlike,
    usage_json,
    used_only,
    with_options,
)
from agents.providers.exchange import Api, HttpProvider
from agents.providers.openai_content import messages_of, tools_of
from agents.providers.openai_stream import STREAMING
from agents.providers.parts import refuse_unsupported
from agents.providers.posting import LIMITS, AsBuilt, PostingSdk
from agents.providers.schemas import strict
from config.settings import ProviderSettings
from core.errors import ProviderError, error
from core.reply import NO_TOKENS, Reply, text_part
from schemas.events import ContentPart, LlmCall, Tokens

#: `models` and `route` are OpenRouter's ways to another model (https://openrouter.ai/docs/features/model-routing); `n_predict` is
#: llama.cpp's bound on the answer, `best_of` vLLM's number of answers.
RESERVED = frozenset({
    "model", "messages", "stream", "n", "maxtokens", "maxcompletiontokens", "models", "route", "npredict", "bestof",
})  # fmt: skip
FINISH = {"stop": "stop", "length": "length", "tool_calls": "tool_calls", "function_call": "tool_calls"}


def translate_request(call: LlmCall) -> dict[str, Any]:
    """The body of `POST /chat/completions`; `ProviderError` for what the API cannot take."""
    refuse_unsupported(call, "openai")
    request, parameters = call["request"], call["request"]["parameters"]
    body: dict[str, Any] = {
        "model": call["model"],
        "messages": messages_of(request),
        "max_completion_tokens": call["max_output_tokens"],
        **tools_of(request),
    }
    for name in ("temperature", "top_p", "seed", "reasoning_effort"):
        if (value := parameters[name]) is not None:  # type: ignore[literal-required]
            body[name] = value
    if parameters["stop"]:
        body["stop"] = parameters["stop"]
    if (schema := answer_schema(call)) is not None:
        form = {"name": "answer", "schema": schema, "strict": strict(schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": form}
    return with_options(body, call, RESERVED)


def translate_response(body: dict[str, Any]) -> Reply:
    """The first choice of a `chat.completion`; `ProviderError` when it is a refusal or an error.

    LookupError, TypeError or AttributeError when the body has another shape, such as no choices.
    """
    choice = body["choices"][0]
    message = choice["message"]
    reason = choice.get("finish_reason")
    tokens, terms = usage_of(body), terms_of(body)
    used = used_only(tokens, body.get("usage"), body.get("model"), body.get("id"), terms)
    if choice.get("error"):
        said = fields(choice["error"]).get("message", "no reason given")
        raise ProviderError(error("provider_bad_answer", f"The answer broke off with an error: {said}"), "maybe", used)
    if reason == "content_filter" or message.get("refusal"):
        said = message.get("refusal") or f"finish_reason is {reason}"
        raise ProviderError(error("provider_content_refused", f"The model refused to answer: {said}"), "maybe", used)
    output = tuple(_parts(message))
    # A call that was asked for by name ends with `stop` (https://platform.openai.com/docs/guides/function-calling).
    called = reason == "stop" and any(part["type"] == "tool_call" for part in output)
    return Reply(
        output=output,
        finish_reason="tool_calls" if called else FINISH.get(reason, "other"),
        response_model=identifier(body.get("model")),
        provider_response_id=identifier(body.get("id")),
        tokens=tokens,
        provider_usage=usage_json(body.get("usage")),
        terms=terms,
    )


def _parts(message: Mapping[str, Any]) -> list[ContentPart]:
    parts = [text_part(content_text(message["content"]))] if message.get("content") else []
    for tool_call in message.get("tool_calls") or ():
        function = tool_call["function"]
        parts.append(tool_call_part(tool_call.get("id"), function["name"], function.get("arguments")))
    return parts


def usage_of(body: dict[str, Any]) -> Tokens:
    """The tokens of a `chat.completion`.

    `prompt_tokens` includes what was read from the cache, written to it, and audio; `completion_tokens` includes reasoning
    and audio (https://platform.openai.com/docs/api-reference/chat/object). OpenAI has one kind of cache write, kept for
    half an hour and priced as five-minute writes are elsewhere (https://platform.openai.com/docs/guides/prompt-caching).
    A server whose total counts reasoning beside the completion, as xAI's does (https://docs.x.ai/docs/guides/reasoning),
    has its completion taken as it stands.
    """
    usage = fields(body.get("usage"))
    prompt, completion = count(usage.get("prompt_tokens")), count(usage.get("completion_tokens"))
    read_from, made = fields(usage.get("prompt_tokens_details")), fields(usage.get("completion_tokens_details"))
    cache_read, cache_write = count(read_from.get("cached_tokens")), count(read_from.get("cache_write_tokens"))
    audio_in, audio_out = count(read_from.get("audio_tokens")), count(made.get("audio_tokens"))
    reasoning = count(made.get("reasoning_tokens"))
    beside = reasoning and count(usage.get("total_tokens")) == (prompt or 0) + (completion or 0) + reasoning
    return Tokens(
        **NO_TOKENS
        | {
            "input_uncached": less(prompt, cache_read, cache_write, audio_in),
            "cache_read": cache_read,
            "cache_write_5m": cache_write,
            "input_audio": audio_in,
            "output_text": less(completion, audio_out, None if beside else reasoning),
            "reasoning": reasoning,
            "output_audio": audio_out,
        }
    )


def terms_of(body: dict[str, Any]) -> str | None:
    """What of a `chat.completion` has prices of its own: another service tier, searches, cached tokens that may be audio.

    `service_tier` is the tier that served the request, whatever was asked for
    (https://platform.openai.com/docs/api-reference/chat/object). A search model is charged by the call as well
    (https://developers.openai.com/api/docs/pricing).
    """
    read_from = fields(fields(body.get("usage")).get("prompt_tokens_details"))
    return terms_text(
        unlike("service tier", body.get("service_tier"), "default"),
        "web search" if "-search-" in str(body.get("model")) else None,
        "cached audio" if count(read_from.get("cached_tokens")) and count(read_from.get("audio_tokens")) else None,
    )


#: What the SDK sends along from OpenAI's own settings; only the key of the same account may go with it.
ACCOUNT_HEADERS = ("OpenAI-Organization", "OpenAI-Project")
#: The SDK insists on a key; it is never sent.
NO_KEY = "none"


def key_header(key: str) -> dict[str, str]:
    """The header that carries a key."""
    return {"Authorization": f"Bearer {key}"}


class _Client(AsBuilt, openai.DefaultAioHttpClient):
    pass


class OpenAISdk(PostingSdk):
    """The `openai` SDK over aiohttp, handing bytes through; its own JSON and models cost more than the whole transport."""

    def __init__(self, base_url: str | None, account_key: str | None = None) -> None:
        """`account_key` is the key that goes with the organization and project of the environment."""
        client = openai.AsyncOpenAI(
            api_key=NO_KEY, base_url=base_url, max_retries=0,
            http_client=_Client(limits=LIMITS),
        )  # fmt: skip
        super().__init__(client, "/chat/completions", openai.APIStatusError, openai.AsyncStream[Any])
        self._account = key_header(account_key) if account_key else None

    def _headers(self, headers: dict[str, str]) -> dict[str, Any]:
        sent: dict[str, Any] = {"Authorization": openai.Omit(), **headers}
        if self._account is None or not self._account.items() <= headers.items():
            sent |= dict.fromkeys(ACCOUNT_HEADERS, openai.Omit())
        return sent


def provider(settings: ProviderSettings) -> HttpProvider:
    """OpenAI; each call ends with `provider_auth` while there is no key."""
    return HttpProvider(settings, Api(
        translate_request, translate_response, usage_of, terms_of, STREAMING, key_header,
        lambda s: OpenAISdk(s.base_url, s.api_key), (openai.APIError,),
    ))  # fmt: skip
