"""Conversations and tools in the terms of Messages (https://docs.anthropic.com/en/api/messages)."""

from __future__ import annotations

import re
from typing import Any

from agents.providers.parts import arguments_of, base64_of, schema_of, turns
from schemas.events import ContentPart, LlmRequest

BLOCK = {"image": "image", "file": "document"}
CHOICE = {"auto": "auto", "none": "none", "required": "any"}


def messages_of(request: LlmRequest) -> list[dict[str, Any]]:
    """The conversation without its system messages; the results of several tools are one turn of the user."""
    return [
        {"role": "user" if role == "tool" else role, "content": _content(parts)}
        for role, parts in turns(request["messages"])
    ]


def _content(parts: list[ContentPart]) -> Any:
    blocks = [_block(part) for part in parts]
    return blocks[0]["text"] if len(blocks) == 1 and blocks[0]["type"] == "text" else blocks


def _block(part: ContentPart) -> dict[str, Any]:
    match part["type"]:
        case "image" | "file" as kind:
            return {"type": BLOCK[kind], "source": _source(part)}
        case "tool_call":
            return {
                "type": "tool_use", "id": _id(part), "name": part["tool_name"], "input": arguments_of(part),
            }  # fmt: skip
        case "tool_result":
            return {"type": "tool_result", "tool_use_id": _id(part), "content": part["text"]}
        case _:
            return {"type": "text", "text": part["text"]}


def _source(part: ContentPart) -> dict[str, Any]:
    if part["url"] is not None:
        return {"type": "url", "url": part["url"]}
    return {"type": "base64", "media_type": part["media_type"], "data": base64_of(part)}


def _id(part: ContentPart) -> str:
    # The API takes no other characters in an id, and other providers make ids with them.
    return re.sub(r"[^A-Za-z0-9_-]", "_", part["tool_call_id"] or "")


def tools_of(request: LlmRequest) -> dict[str, Any]:
    """The fields that offer the request's tools (https://docs.anthropic.com/en/docs/agents-and-tools/tool-use); none without."""
    if not request["tools"]:
        return {}
    tools = [
        {"name": tool["name"], "input_schema": schema_of(tool)}
        | ({"description": tool["description"]} if tool["description"] is not None else {})
        for tool in request["tools"]
    ]
    choice = request["tool_choice"]
    if choice is None:
        return {"tools": tools}
    wanted = {"type": CHOICE[choice]} if choice in CHOICE else {"type": "tool", "name": choice}
    return {"tools": tools, "tool_choice": wanted}
