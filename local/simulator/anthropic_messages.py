"""Anthropic's Messages (https://docs.anthropic.com/en/api/messages, https://docs.anthropic.com/en/api/errors)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from local.simulator.anthropic_content import check_schema, check_tool_turns, media_in
from local.simulator.calls import NO_TOKENS, Answer, Json, Prompt, Refused, Tokens, Tool, Wait, chosen
from local.simulator.dialect import bearer, content_texts, letters, prompt_text

MODELS = {
    "claude-opus-4-5-20251101": ("Claude Opus 4.5", "2025-11-24T00:00:00Z"),
    "claude-haiku-4-5-20251001": ("Claude Haiku 4.5", "2025-10-15T00:00:00Z"),
    "claude-sonnet-4-5-20250929": ("Claude Sonnet 4.5", "2025-09-29T00:00:00Z"),
}
#: The models before version 4.6, the last that go on with an answer that the request began
#: (https://platform.claude.com/docs/en/about-claude/models/migration-guide).
PREFILLED = re.compile(r"claude-(3|[a-z]+-4(-[0-5])?(-\d{8}|$))")
TYPES = {
    401: "authentication_error", 402: "billing_error", 403: "permission_error", 404: "not_found_error",
    413: "request_too_large", 429: "rate_limit_error", 504: "timeout_error", 529: "overloaded_error",
}  # fmt: skip
MESSAGES = {
    400: "Could not parse the request body as JSON.",
    401: "invalid x-api-key",
    402: "Your credit balance is too low to access the Anthropic API.",
    403: "Your API key does not have permission to use the specified resource.",
    404: "model: {model}",
    413: "Request exceeds the maximum size",
    429: "This request would exceed your organization's rate limit of 50 requests per minute (model: {model}).",
    504: "The request timed out while processing.",
    529: "Overloaded",
}
FINISH = {"stop": "end_turn", "length": "max_tokens", "tool": "tool_use", "refused": "refusal"}


class AnthropicMessages:
    """`POST /v1/messages`."""

    provider = "anthropic"
    unreported = frozenset({"input_audio", "output_audio"})

    def authenticate(self, headers: Mapping[str, str], query: Mapping[str, str]) -> None:
        """`Refused` with 401 when the key is missing or bad."""
        key = headers.get("X-Api-Key") or bearer(headers)
        if not key:
            raise Refused(401, "x-api-key header is required")
        if key == "bad-key":
            raise Refused(401, "invalid x-api-key" if "X-Api-Key" in headers else "Invalid bearer token")

    def read(self, headers: Mapping[str, str], body: Json, model: str | None) -> Prompt:
        """The prompt in a request; `Refused` for what the API or the simulator does not take."""
        if "Anthropic-Version" not in headers:
            raise Refused(400, "anthropic-version: header is required")
        for field in ("model", "max_tokens", "messages"):
            if body.get(field) is None:
                raise Refused(400, f"{field}: Field required")
        if type(body["max_tokens"]) is not int or body["max_tokens"] < 1:
            raise Refused(400, "max_tokens: must be greater than or equal to 1")
        messages = body["messages"]
        if not messages:
            raise Refused(400, "messages: at least one message is required")
        texts = [text for message in messages for text in _texts(message["content"])]
        text, asked = prompt_text([*content_texts(body.get("system"), ("text",)), *texts])
        check_tool_turns(messages)
        if messages[-1]["role"] == "assistant" and not PREFILLED.search(str(body["model"])):
            raise Refused(
                400,
                "This model does not support assistant message prefill. The conversation must end with a user message.",
            )
        media = media_in(messages)
        return Prompt(
            str(body["model"]), text, asked, body["max_tokens"], _tool(body, messages[-1]["content"]), _schema(body),
            media_tokens=media.image_tokens + media.file_tokens,
            streamed=bool(body.get("stream")),
        )  # fmt: skip

    def answer(self, prompt: Prompt, answer: Answer) -> Json:
        """A `message` of one content block, or none when it is refused."""
        content: list[Json] = [{"type": "text", "text": answer.text}] if answer.text else []
        if answer.tool:
            call = {"type": "tool_use", "id": f"toolu_01{letters(22)}", "name": answer.tool.name}
            content.append(call | {"input": answer.arguments})
        body = _message(prompt, content, FINISH[answer.finish], answer.tokens if answer.usage_shown else None)
        if answer.finish == "refused":
            body["stop_details"] = {"type": "refusal", "category": None, "explanation": "The request was refused."}
        return body

    def nothing(self, prompt: Prompt) -> Json:
        """A `message` without content."""
        return _message(prompt, [], "end_turn", NO_TOKENS)

    def failure(self, refused: Refused, wait: Wait, request_id: str) -> Json:
        """`{"type": "error", "error": {"type", "message"}, "request_id"}`."""
        kind = TYPES.get(refused.status, "api_error" if refused.status >= 500 else "invalid_request_error")
        return {"type": "error", "error": {"type": kind, "message": refused.message}, "request_id": request_id}

    def injected(self, status: int, prompt: Prompt, wait: Wait) -> Refused:
        """What Anthropic says with this status."""
        message = MESSAGES.get(status, "Internal server error" if status >= 500 else "The request failed.")
        return Refused(status, message.format(model=prompt.model))

    def too_long(self, read: int, most: int) -> Refused:
        """What the provider says of a prompt of `read` tokens to a model whose context has `most`."""
        return Refused(400, f"prompt is too long: {read} tokens > {most} maximum")

    def headers(self, request_id: str, latency_ms: float) -> dict[str, str]:
        """The headers of every answer (https://docs.anthropic.com/en/api/overview#response-headers)."""
        return {"request-id": request_id, "anthropic-organization-id": "00000000-0000-4000-8000-000000000000"}

    def request_id(self) -> str:
        """`req_011C` and 20 letters and digits."""
        return f"req_011C{letters(20)}"

    def models(self) -> Json:
        """`GET /v1/models`, on one page."""
        data = [
            {"type": "model", "id": model, "display_name": name, "created_at": at, "lifecycle": "active"}
            for model, (name, at) in MODELS.items()
        ]
        return {"data": data, "has_more": False, "first_id": data[0]["id"], "last_id": data[-1]["id"]}


def _texts(content: Any) -> list[str]:
    if isinstance(content, str):
        return [content]
    texts: list[str] = []
    for block in content:
        nested = block.get("content") if block.get("type") == "tool_result" else [block]
        texts += content_texts(nested, ("text",))
    return texts


def _tool(body: Json, last: Any) -> Tool | None:
    choice = body.get("tool_choice") or {"type": "auto"}
    if choice["type"] == "none":
        return None
    tools = [Tool(t["name"], t["input_schema"]) for t in body.get("tools") or () if "input_schema" in t]
    after_result = isinstance(last, list) and any(block.get("type") == "tool_result" for block in last)
    return chosen(tools, choice.get("name"), after_result, must=choice["type"] == "any")


def _schema(body: Json) -> Json | None:
    shape = (body.get("output_config") or {}).get("format") or body.get("output_format") or {}
    schema = shape.get("schema") if shape.get("type") == "json_schema" else None
    if not isinstance(schema, dict):
        return None
    check_schema(schema)
    return schema


def _message(prompt: Prompt, content: list[Json], stop_reason: str, tokens: Tokens | None) -> Json:
    body: Json = {
        "id": f"msg_01{letters(22)}",
        "type": "message",
        "role": "assistant",
        "model": prompt.model,
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": None,
    }
    return body if tokens is None else body | {"usage": _usage(tokens)}


def _usage(tokens: Tokens) -> Json:
    """Input tokens exclude those read from the cache and written to it; output tokens include thinking."""
    usage: Json = {
        "input_tokens": tokens.input_uncached,
        "cache_creation_input_tokens": tokens.cache_write_5m + tokens.cache_write_1h,
        "cache_read_input_tokens": tokens.cache_read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": tokens.cache_write_5m,
            "ephemeral_1h_input_tokens": tokens.cache_write_1h,
        },
        "output_tokens": tokens.output_total,
        "service_tier": "standard",
    }
    if tokens.reasoning:
        usage["output_tokens_details"] = {"thinking_tokens": tokens.reasoning}
    return usage
