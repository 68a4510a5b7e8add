"""Google's Gemini API (https://ai.google.dev/api/generate-content)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from local.simulator.calls import NO_TOKENS, Answer, Json, Prompt, Refused, Tokens, Tool, Wait, chosen
from local.simulator.dialect import bearer, hexadecimal, letters, prompt_text, whole_number
from local.simulator.gemini_content import check_tool_turns, field, media_in

SERVICE = "generativelanguage.googleapis.com"
MODELS = {
    "gemini-2.5-pro": "Gemini 2.5 Pro",
    "gemini-2.5-flash": "Gemini 2.5 Flash",
    "gemini-2.5-flash-lite": "Gemini 2.5 Flash-Lite",
}
STATUSES = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND",
    409: "ABORTED", 429: "RESOURCE_EXHAUSTED", 499: "CANCELLED", 500: "INTERNAL", 501: "UNIMPLEMENTED",
    503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED",
}  # fmt: skip
MESSAGES = {
    400: "Request contains an invalid argument.",
    403: "The caller does not have permission",
    404: "models/{model} is not found for API version v1beta, or is not supported for generateContent. Call ListModels to see "
    "the list of available models and their supported methods.",
    429: "You exceeded your current quota, please check your plan and billing details. For more information on this error, "
    "head to: https://ai.google.dev/gemini-api/docs/rate-limits.",
    500: "An internal error has occurred. Please retry or report in https://developers.generativeai.google/guide/troubleshooting",
    503: "The model is overloaded. Please try again later.",
    504: "Deadline expired before operation could complete.",
}
NO_KEY = (
    "Request is missing required authentication credential. Expected OAuth 2 access token, login cookie or other valid "
    "authentication credential. See https://developers.google.com/identity/sign-in/web/devconsole-project."
)
BAD_KEY = NO_KEY.replace("is missing required authentication credential", "had invalid authentication credentials")
REASONS = {NO_KEY: "CREDENTIALS_MISSING", BAD_KEY: "ACCESS_TOKEN_TYPE_UNSUPPORTED"}
FINISH = {"stop": "STOP", "tool": "STOP", "length": "MAX_TOKENS", "refused": "SAFETY"}
STREAMED = "streamGenerateContent"
METHODS = ("generateContent", STREAMED)


class Gemini:
    """`POST /v1beta/models/{model}:generateContent`, and the same under `/v1`."""

    provider = "google"
    unreported = frozenset({"cache_write_5m", "cache_write_1h"})

    def authenticate(self, headers: Mapping[str, str], query: Mapping[str, str]) -> None:
        """`Refused` with 401 when the key is missing or bad."""
        key = headers.get("X-Goog-Api-Key") or query.get("key") or bearer(headers)
        if not key:
            raise Refused(401, NO_KEY)
        if key == "bad-key":
            raise Refused(401, BAD_KEY)

    def read(self, headers: Mapping[str, str], body: Json, model: str | None) -> Prompt:
        """The prompt in a request; `Refused` for what the API or the simulator does not take."""
        name, _, method = (model or "").rpartition(":")
        if method not in METHODS:
            raise Refused(400, f"The simulator does not answer {method}; call {' or '.join(METHODS)}.")
        contents = field(body, "contents")
        if not contents:
            raise Refused(400, "* GenerateContentRequest.contents: contents is not specified\n")
        system = field(body, "systemInstruction")
        spoken = [system, *contents] if system else contents
        text, asked = prompt_text(text for content in spoken for part in content["parts"] for text in _texts(part))
        config = field(body, "generationConfig") or {}
        check_tool_turns(contents, name)
        media = media_in(contents)
        after_result = any(field(part, "functionResponse") for part in contents[-1]["parts"])
        return Prompt(
            name,
            text,
            asked,
            whole_number(config, "maxOutputTokens", "max_output_tokens"),
            _tool(body, after_result),
            _schema(config),
            media_tokens=media.image_tokens + media.file_tokens,
            audio_tokens=media.audio_tokens,
            streamed=method == STREAMED,
        )

    def answer(self, prompt: Prompt, answer: Answer) -> Json:
        """A `GenerateContentResponse` of one candidate."""
        candidate: Json = {"finishReason": FINISH[answer.finish], "index": 0}
        if answer.finish == "refused":
            rating = {"category": "HARM_CATEGORY_DANGEROUS_CONTENT", "probability": "HIGH", "blocked": True}
            candidate["safetyRatings"] = [rating]
        else:
            call = {"name": answer.tool.name, "args": answer.arguments} if answer.tool else None
            part = {"functionCall": call} if call else {"text": answer.text}
            candidate["content"] = {"parts": [part], "role": "model"}
        return {"candidates": [candidate]} | _rest(prompt, answer.tokens if answer.usage_shown else None)

    def nothing(self, prompt: Prompt) -> Json:
        """A `GenerateContentResponse` without candidates."""
        return _rest(prompt, NO_TOKENS)

    def failure(self, refused: Refused, wait: Wait, request_id: str) -> Json:
        """`{"error": {"code", "message", "status", "details"}}`, the wait as a `google.rpc.RetryInfo`."""
        status = STATUSES.get(refused.status, "INTERNAL" if refused.status >= 500 else "FAILED_PRECONDITION")
        error: Json = {"code": refused.status, "message": refused.message, "status": status}
        if details := _details(refused, wait):
            error["details"] = details
        return {"error": error}

    def injected(self, status: int, prompt: Prompt, wait: Wait) -> Refused:
        """What Google says with this status."""
        message = BAD_KEY if status == 401 else MESSAGES.get(status, "The request failed.")
        return Refused(status, message.format(model=prompt.model))

    def too_long(self, read: int, most: int) -> Refused:
        """What the provider says of a prompt of `read` tokens to a model whose context has `most`."""
        return Refused(400, f"The input token count ({read}) exceeds the maximum number of tokens allowed ({most}).")

    def headers(self, request_id: str, latency_ms: float) -> dict[str, str]:
        """The headers of every answer."""
        return {"server-timing": f"gfet4t7; dur={latency_ms:.0f}", "x-content-type-options": "nosniff"}

    def request_id(self) -> str:
        """Nothing; Gemini names its responses only."""
        return ""

    def models(self) -> Json:
        """`GET /v1beta/models`, on one page."""
        return {"models": [
            {
                "name": f"models/{model}", "version": "001", "displayName": name, "inputTokenLimit": 1_048_576,
                "outputTokenLimit": 65_536, "supportedGenerationMethods": ["generateContent"],
            }
            for model, name in MODELS.items()
        ]}  # fmt: skip


def _texts(part: Json) -> list[str]:
    if (result := field(part, "functionResponse")) is not None:
        return [orjson.dumps(result.get("response")).decode()]
    return [part["text"]] if "text" in part else []


def _tool(body: Json, after_result: bool) -> Tool | None:
    calling = field(field(body, "toolConfig") or {}, "functionCallingConfig") or {}
    mode = calling.get("mode", "AUTO")
    if mode == "NONE":
        return None
    tools = [
        Tool(
            function["name"],
            field(function, "parametersJsonSchema") or function.get("parameters") or {"type": "object"},
        )
        for tool in body.get("tools") or ()
        for function in field(tool, "functionDeclarations") or ()
    ]
    name = next(iter(field(calling, "allowedFunctionNames") or ()), None)
    return chosen(tools, name, after_result, must=mode == "ANY")


def _schema(config: Json) -> Json | None:
    schema: Any = field(config, "responseJsonSchema") or field(config, "responseSchema")
    if isinstance(schema, dict):
        return schema
    if field(config, "responseMimeType") == "application/json":
        return {"type": "object", "properties": {"answer": {"type": "string"}}}
    return None


def _details(refused: Refused, wait: Wait) -> list[Json]:
    details: list[Json] = []
    if reason := REASONS.get(refused.message):
        details.append({
            "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "googleapis.com",
            "metadata": {"service": SERVICE, "method": f"google.ai.{SERVICE.split('.')[0]}.v1beta.GenerativeService"},
        })  # fmt: skip
    if refused.status == 429:
        violation = {
            "quotaMetric": f"{SERVICE}/generate_content_paid_tier_requests",
            "quotaId": "GenerateRequestsPerMinutePerProjectPerModel-PaidTier",
        }
        details.append({"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [violation]})
    if wait.shortest is not None:
        details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{wait.shortest:g}s"})
    return details


def _rest(prompt: Prompt, tokens: Tokens | None) -> Json:
    body: Json = {"modelVersion": prompt.model, "responseId": f"{letters(8)}-{hexadecimal(14)}"}
    return body if tokens is None else {"usageMetadata": usage_metadata(tokens)} | body


def usage_metadata(tokens: Tokens) -> Json:
    """Prompt tokens include those of the cache and of audio, candidates' exclude thoughts; but for totals, no zeros."""
    candidates = tokens.output_text + tokens.output_audio
    usage: Json = {"promptTokenCount": tokens.input_total}
    if candidates:
        usage["candidatesTokenCount"] = candidates
    usage["totalTokenCount"] = tokens.input_total + tokens.output_total
    if tokens.cache_read:
        usage["cachedContentTokenCount"] = tokens.cache_read
    if tokens.reasoning:
        usage["thoughtsTokenCount"] = tokens.reasoning
    details = {
        "promptTokensDetails": _by_modality(tokens.input_uncached + tokens.cache_read, tokens.input_audio),
        "cacheTokensDetails": _by_modality(tokens.cache_read, 0),
        "candidatesTokensDetails": _by_modality(tokens.output_text, tokens.output_audio) if tokens.output_audio else [],
    }
    return usage | {name: counts for name, counts in details.items() if counts}


def _by_modality(text: int, audio: int) -> list[Json]:
    counts = {"TEXT": text, "AUDIO": audio}
    return [{"modality": modality, "tokenCount": count} for modality, count in counts.items() if count]
