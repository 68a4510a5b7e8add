"""Google's Gemini API in Millstream's terms (https://ai.google.dev/api/generate-content)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast
from urllib.parse import quote

import aiohttp
import orjson
from google import genai
from google.genai import errors, types

from agents.providers.base import (
    answer_schema,
    content_text,
    fields,
    identifier,
    system_text,
    tool_call_part,
    usage_json,
    used_only,
    with_options,
)
from agents.providers.exchange import Answer, Api, HttpProvider
from agents.providers.google_content import contents_of, tools_of
from agents.providers.google_stream import STREAMING
from agents.providers.google_usage import terms_of, usage_of
from agents.providers.parts import refuse_unsupported
from agents.providers.streamed import Streamed
from config.settings import ProviderSettings
from core.errors import ProviderError, error
from core.features import old_gemini
from core.reply import Reply, text_part
from schemas.events import ContentPart, LlmCall

#: `cachedContent` would put tokens before the prompt that nothing here can bound.
RESERVED = frozenset({
    "model", "contents", "systeminstruction", "maxoutputtokens", "candidatecount", "cachedcontent",
})  # fmt: skip
#: Budgets for models that take no level (https://ai.google.dev/gemini-api/docs/openai#thinking).
BUDGET = {"minimal": 1_024, "low": 1_024, "medium": 8_192, "high": 24_576}
FINISH = {"STOP": "stop", "MAX_TOKENS": "length"}
REFUSED = frozenset({
    "SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT",
    "ESCALATION",
})  # fmt: skip


def translate_request(call: LlmCall) -> dict[str, Any]:
    """The body of `POST /models/{model}:generateContent`; `ProviderError` for what the API cannot take."""
    refuse_unsupported(call, "google")
    request, parameters = call["request"], call["request"]["parameters"]
    config: dict[str, Any] = {"maxOutputTokens": call["max_output_tokens"]}
    for name, ours in (("temperature", "temperature"), ("topP", "top_p"), ("seed", "seed")):
        if (value := parameters[ours]) is not None:  # type: ignore[literal-required]
            config[name] = value
    if parameters["stop"]:
        config["stopSequences"] = parameters["stop"]
    if (schema := answer_schema(call)) is not None:
        config |= {"responseMimeType": "application/json", "responseJsonSchema": schema}
    if (effort := parameters["reasoning_effort"]) is not None:
        by_budget = old_gemini("google", call["model"])
        config["thinkingConfig"] = (
            {"thinkingBudget": BUDGET[effort]} if by_budget else {"thinkingLevel": effort.upper()}
        )
    body: dict[str, Any] = {"contents": contents_of(call), "generationConfig": config, **tools_of(request)}
    if (system := system_text(request["messages"])) is not None:
        body["systemInstruction"] = {"parts": [{"text": system}]}
    return with_options(body, call, RESERVED)


def translate_response(body: dict[str, Any]) -> Reply:
    """The first candidate of a `GenerateContentResponse`; `ProviderError` when the prompt or the answer was blocked.

    LookupError, TypeError or AttributeError when the body has another shape, such as no candidates.
    """
    blocked = fields(body.get("promptFeedback")).get("blockReason")
    if blocked and not body.get("candidates"):
        message = f"The prompt was blocked before an answer was made: blockReason is {blocked}; change the content."
        raise ProviderError(error("provider_content_refused", message), "no")
    candidate = body["candidates"][0]
    reason, usage = candidate.get("finishReason"), body.get("usageMetadata")
    if reason in REFUSED:
        said = candidate.get("finishMessage") or f"finishReason is {reason}"
        used = used_only(usage_of(body), usage, body.get("modelVersion"), body.get("responseId"), terms_of(body))
        raise ProviderError(error("provider_content_refused", f"The answer was blocked: {said}"), "maybe", used)
    output = tuple(_parts(fields(candidate.get("content")), str(body.get("responseId") or "call")))
    finish = FINISH.get(reason, "other")
    return Reply(
        output=output,
        finish_reason="tool_calls" if output and output[-1]["type"] == "tool_call" else finish,
        response_model=identifier(body.get("modelVersion")),
        provider_response_id=identifier(body.get("responseId")),
        tokens=usage_of(body),
        provider_usage=usage_json(usage),
        terms=terms_of(body),
    )


def _parts(content: dict[str, Any], response_id: str) -> list[ContentPart]:
    """The parts of the answer: neighbouring texts as one, as the API splits them anywhere; thoughts are left out.

    A function call without an id, as most models make it, gets one of the response's and its place.
    """
    parts: list[ContentPart] = []
    for part in content.get("parts") or ():
        if "functionCall" in part:
            function = part["functionCall"]
            arguments = orjson.dumps(function.get("args") or {}).decode()
            call_id = function.get("id") or f"{response_id}-{len(parts)}"
            parts.append(tool_call_part(call_id, function["name"], arguments))
        elif part.get("text") and not part.get("thought"):
            text = content_text(part["text"])
            if parts and parts[-1]["type"] == "text":
                parts[-1] = text_part(f"{parts[-1]['text']}{text}")
            else:
                parts.append(text_part(text))
    return parts


#: The SDK looks for keys in the environment when it gets none; every call has its own, and this one is never sent.
NO_KEY = "none"


def key_header(key: str) -> dict[str, str]:
    """The header that carries a key, spelled as the SDK spells its own, which it replaces."""
    return {"x-goog-api-key": key}


class GoogleSdk:
    """The `google-genai` SDK, which uses aiohttp of itself, below its models: they cost more than the whole transport."""

    def __init__(self, base_url: str | None) -> None:
        # One attempt must be asked for: without retry options the SDK repeats a request whose connection broke, after
        # 1 to 10 seconds and whatever was charged for it (BaseApiClient._async_request_once).
        # The SDK's own default, v1, lacks what is in preview (https://ai.google.dev/gemini-api/docs/api-versions).
        options = types.HttpOptions(
            base_url=base_url, api_version="v1beta", retry_options=types.HttpRetryOptions(attempts=1)
        )
        self._client = genai.Client(api_key=NO_KEY, vertexai=False, http_options=options)

    async def send(self, model: str, body: dict[str, Any], headers: dict[str, str], timeout: float) -> Answer:
        """Post a generateContent."""
        options = types.HttpOptions(headers=headers, timeout=max(1, int(timeout * 1_000)))
        try:
            response = await self._client._api_client.async_request(
                "post", _path(model, "generateContent"), body, options
            )
        except errors.APIError as refused:
            headers_of = getattr(refused.response, "headers", {})
            return Answer(refused.code, headers_of, json.dumps(refused.details).encode())
        return Answer(200, response.headers or {}, str(response.body or "").encode())

    @asynccontextmanager
    async def stream(
        self, model: str, body: dict[str, Any], headers: dict[str, str], timeout: float
    ) -> AsyncIterator[Streamed]:
        """Post a streamGenerateContent, and read its answer while it comes."""
        options = types.HttpOptions(headers=headers, timeout=max(1, int(timeout * 1_000)))
        client = self._client._api_client
        request = client._build_request("post", _path(model, "streamGenerateContent?alt=sse"), body, options)
        try:
            answered = await client._async_request(request, options, stream=True)
        except errors.APIError as refused:
            said, headers_of = json.dumps(refused.details).encode(), getattr(refused.response, "headers", {})
            yield Streamed(refused.code, headers_of, _once(said))
            return
        answer = cast(aiohttp.ClientResponse, answered.response_stream)
        try:
            yield Streamed(answer.status, answer.headers, answer.content.iter_any())
        finally:
            # Closes the connection where the stream has not ended; one that has is back in its pool.
            answer.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aio.aclose()


def _path(model: str, method: str) -> str:
    kind, _, name = model.rpartition("/")
    return f"{kind if kind in ('models', 'tunedModels') else 'models'}/{quote(name, safe='')}:{method}"


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content


def provider(settings: ProviderSettings) -> HttpProvider:
    """Gemini; each call ends with `provider_auth` while there is no key."""
    return HttpProvider(settings, Api(
        translate_request, translate_response, usage_of, terms_of, STREAMING, key_header,
        lambda s: GoogleSdk(s.base_url), (errors.APIError, json.JSONDecodeError),
    ))  # fmt: skip
