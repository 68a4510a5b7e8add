"""OpenAI's Responses (https://platform.openai.com/docs/api-reference/responses): text, functions and JSON schemas."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import orjson

from local.simulator.calls import NO_TOKENS, Answer, Json, Prompt, Refused, Tokens, Tool, chosen
from local.simulator.dialect import content_texts, hexadecimal, letters, prompt_text, whole_number
from local.simulator.openai_api import OpenAI, model_of, tools_of

CUT_SHORT = {"length": "max_output_tokens", "refused": "content_filter"}


class OpenAIResponses(OpenAI):
    """`POST /responses`."""

    unreported = frozenset({"cache_write_1h", "input_audio", "output_audio"})

    def read(self, headers: Mapping[str, str], body: Json, model: str | None) -> Prompt:
        """The prompt in a request; `Refused` for what the API or the simulator does not take."""
        model = model_of(body)
        if body.get("stream"):
            message = "The simulator streams Chat Completions only; leave out 'stream'."
            raise Refused(400, message, code="unsupported_value", param="stream")
        given = body.get("input")
        if not given:
            raise Refused(400, "Missing required parameter: 'input'.", code="missing_required_parameter", param="input")
        items = [{"role": "user", "content": given}] if isinstance(given, str) else given
        texts = [text for item in items for text in _texts(item)]
        text, asked = prompt_text([*([body["instructions"]] if body.get("instructions") else []), *texts])
        shape = (body.get("text") or {}).get("format") or {}
        return Prompt(
            model, text, asked,
            max_tokens=whole_number(body, "max_output_tokens"),
            tool=_tool(body, items[-1].get("type") == "function_call_output"),
            schema=shape.get("schema") if shape.get("type") == "json_schema" else None,
        )  # fmt: skip

    def answer(self, prompt: Prompt, answer: Answer) -> Json:
        """A `response` with one item of output."""
        status = "incomplete" if answer.finish in CUT_SHORT else "completed"
        item: Json
        if answer.tool:
            item = {
                "id": f"fc_{hexadecimal(50)}", "type": "function_call", "status": status, "name": answer.tool.name,
                "arguments": orjson.dumps(answer.arguments).decode(), "call_id": f"call_{letters(24)}",
            }  # fmt: skip
        else:
            content = {"type": "output_text", "annotations": [], "logprobs": [], "text": answer.text}
            item = {
                "id": f"msg_{hexadecimal(50)}", "type": "message", "status": status, "role": "assistant",
                "content": [content] if answer.text else [],
            }  # fmt: skip
        tokens = answer.tokens if answer.usage_shown else None
        return _response(prompt, [item], tokens, CUT_SHORT.get(answer.finish))

    def nothing(self, prompt: Prompt) -> Json:
        """A `response` without output."""
        return _response(prompt, [], NO_TOKENS, None)


def _texts(item: Json) -> list[str]:
    if item.get("type") == "function_call_output":
        return [str(item.get("output", ""))]
    return content_texts(item.get("content"), ("input_text", "output_text", "refusal"))


def _tool(body: Json, after_result: bool) -> Tool | None:
    choice: Any = body.get("tool_choice")
    if choice == "none":
        return None
    name = choice.get("name") if isinstance(choice, dict) else None
    return chosen(tools_of(body.get("tools")), name, after_result, must=choice == "required")


def _response(prompt: Prompt, output: list[Json], tokens: Tokens | None, cut_short: str | None) -> Json:
    now = int(time.time())
    return {
        "id": f"resp_{hexadecimal(50)}",
        "object": "response",
        "created_at": now,
        "status": "incomplete" if cut_short else "completed",
        "background": False,
        "completed_at": None if cut_short else now,
        "error": None,
        "incomplete_details": {"reason": cut_short} if cut_short else None,
        "instructions": None,
        "max_output_tokens": prompt.max_tokens,
        "model": prompt.model,
        "output": output,
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": None if tokens is None else _usage(tokens),
        "user": None,
        "metadata": {},
    }


def _usage(tokens: Tokens) -> Json:
    return {
        "input_tokens": tokens.input_total,
        "input_tokens_details": {"cached_tokens": tokens.cache_read, "cache_write_tokens": tokens.cache_write_5m},
        "output_tokens": tokens.output_total,
        "output_tokens_details": {"reasoning_tokens": tokens.reasoning},
        "total_tokens": tokens.input_total + tokens.output_total,
    }
