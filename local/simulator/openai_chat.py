"""OpenAI's Chat Completions (https://platform.openai.com/docs/api-reference/chat), which many servers speak."""

from __future__ import annotations

import time
from collections.abc import Mapping

import orjson

from local.simulator.calls import NO_TOKENS, Answer, Json, Prompt, Refused, Tokens, Tool, chosen
from local.simulator.dialect import content_texts, letters, prompt_text, whole_number
from local.simulator.openai_api import OpenAI, model_of, tools_of
from local.simulator.openai_content import check_strict, check_tool_turns, media_in

FINISH = {"stop": "stop", "length": "length", "tool": "tool_calls", "refused": "content_filter"}


class OpenAIChat(OpenAI):
    """`POST /chat/completions`."""

    unreported = frozenset({"cache_write_1h"})

    def read(self, headers: Mapping[str, str], body: Json, model: str | None) -> Prompt:
        """The prompt in a request; `Refused` for what the API or the simulator does not take."""
        model = model_of(body)
        messages = body.get("messages")
        if messages is None:
            message = "Missing required parameter: 'messages'."
            raise Refused(400, message, code="missing_required_parameter", param="messages")
        if not messages:
            message = "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead."
            raise Refused(400, message, code="empty_array", param="messages")
        if body.get("n") not in (None, 1):
            raise Refused(400, "The simulator makes one choice; leave out 'n'.", code="unsupported_value", param="n")
        texts = [text for message in messages for text in content_texts(message.get("content"), ("text", "refusal"))]
        text, asked = prompt_text(texts)
        check_tool_turns(messages)
        media = media_in(messages)
        return Prompt(
            model, text, asked,
            max_tokens=whole_number(body, "max_completion_tokens", "max_tokens"),
            tool=_tool(body, messages[-1]["role"] == "tool"),
            schema=_schema(body.get("response_format")),
            media_tokens=media.image_tokens + media.file_tokens,
            audio_tokens=media.audio_tokens,
            streamed=bool(body.get("stream")),
            stream_usage=bool((body.get("stream_options") or {}).get("include_usage")),
        )  # fmt: skip

    def answer(self, prompt: Prompt, answer: Answer) -> Json:
        """A `chat.completion` of one choice."""
        content = None if answer.tool or answer.finish == "refused" else answer.text
        said: Json = {"role": "assistant", "content": content, "refusal": None, "annotations": []}
        if answer.tool:
            function = {"name": answer.tool.name, "arguments": orjson.dumps(answer.arguments).decode()}
            said["tool_calls"] = [{"id": f"call_{letters(24)}", "type": "function", "function": function}]
        choice = {"index": 0, "message": said, "logprobs": None, "finish_reason": FINISH[answer.finish]}
        return _completion(prompt, [choice], answer.tokens if answer.usage_shown else None)

    def nothing(self, prompt: Prompt) -> Json:
        """A `chat.completion` without choices."""
        return _completion(prompt, [], NO_TOKENS)


def _tool(body: Json, after_result: bool) -> Tool | None:
    choice = body.get("tool_choice")
    if choice == "none":
        return None
    name = choice.get("function", {}).get("name") if isinstance(choice, dict) else None
    return chosen(tools_of(body.get("tools")), name, after_result, must=choice == "required")


def _schema(response_format: Json | None) -> Json | None:
    match (response_format or {}).get("type"):
        case "json_schema":
            shape = (response_format or {})["json_schema"]
            if shape.get("strict"):
                check_strict(shape.get("schema"))
            return shape.get("schema") or {"type": "object"}
        case "json_object":
            return {"type": "object", "properties": {"answer": {"type": "string"}}}
        case _:
            return None


def _completion(prompt: Prompt, choices: list[Json], tokens: Tokens | None) -> Json:
    body: Json = {
        "id": f"chatcmpl-{letters(29)}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": prompt.model,
        "choices": choices,
        "service_tier": "default",
        "system_fingerprint": None,
    }
    return body if tokens is None else body | {"usage": _usage(tokens)}


def _usage(tokens: Tokens) -> Json:
    """Prompt tokens include those of the cache and of audio, completion tokens reasoning and audio."""
    read = {"cached_tokens": tokens.cache_read, "audio_tokens": tokens.input_audio}
    if tokens.cache_write_5m:
        read["cache_write_tokens"] = tokens.cache_write_5m
    return {
        "prompt_tokens": tokens.input_total,
        "completion_tokens": tokens.output_total,
        "total_tokens": tokens.input_total + tokens.output_total,
        "prompt_tokens_details": read,
        "completion_tokens_details": {
            "reasoning_tokens": tokens.reasoning,
            "audio_tokens": tokens.output_audio,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
