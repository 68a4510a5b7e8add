"""Conversations and tools in the terms of Chat Completions (https://platform.openai.com/docs/api-reference/chat/create)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from agents.providers.parts import base64_of, schema_of
from schemas.events import ContentPart, LlmRequest, Message

#: What the API calls the formats of audio (https://platform.openai.com/docs/guides/audio).
AUDIO_FORMAT = {"audio/wav": "wav", "audio/mpeg": "mp3"}


def messages_of(request: LlmRequest) -> list[dict[str, Any]]:
    """The conversation; each result of a tool is a message of its own."""
    return [said for message in request["messages"] for said in _messages(message)]


def _messages(message: Message) -> Iterator[dict[str, Any]]:
    parts = message["content"]
    if len(parts) == 1 and parts[0]["type"] == "text":
        yield {"role": message["role"], "content": parts[0]["text"]}
        return
    if message["role"] == "tool":
        for part in parts:
            yield {"role": "tool", "tool_call_id": part["tool_call_id"], "content": part["text"]}
        return
    said = [_part(part) for part in parts if part["type"] != "tool_call"]
    calls = [_tool_call(part) for part in parts if part["type"] == "tool_call"]
    yield {"role": message["role"], "content": said or None} | ({"tool_calls": calls} if calls else {})


def _part(part: ContentPart) -> dict[str, Any]:
    media_type = part["media_type"] or ""
    match part["type"]:
        case "image":
            return {"type": "image_url", "image_url": {"url": part["url"] or _data_url(part)}}
        case "audio":
            return {"type": "input_audio", "input_audio": {"data": base64_of(part), "format": AUDIO_FORMAT[media_type]}}
        case "file":
            return {"type": "file", "file": {"filename": "file.pdf", "file_data": _data_url(part)}}
        case _:
            return {"type": "text", "text": part["text"]}


def _data_url(part: ContentPart) -> str:
    return f"data:{part['media_type']};base64,{base64_of(part)}"


def _tool_call(part: ContentPart) -> dict[str, Any]:
    function = {"name": part["tool_name"], "arguments": part["tool_arguments"] or "{}"}
    return {"id": part["tool_call_id"], "type": "function", "function": function}


def tools_of(request: LlmRequest) -> dict[str, Any]:
    """The fields that offer the request's tools; none without tools."""
    if not request["tools"]:
        return {}
    functions = [
        {"name": tool["name"], "parameters": schema_of(tool)}
        | ({"description": tool["description"]} if tool["description"] is not None else {})
        for tool in request["tools"]
    ]
    fields: dict[str, Any] = {"tools": [{"type": "function", "function": function} for function in functions]}
    match request["tool_choice"]:
        case None:
            pass
        case "auto" | "none" | "required" as choice:
            fields["tool_choice"] = choice
        case name:
            fields["tool_choice"] = {"type": "function", "function": {"name": name}}
    return fields
