"""What the translations of conversations and tools into every provider's terms share."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import orjson

from core.errors import ProviderError, error
from core.features import unsupported_by
from schemas.events import ContentPart, LlmCall, Message, Tool


def refuse_unsupported(call: LlmCall, kind: str) -> None:
    """`ProviderError` with `caller_unsupported_feature` for what a provider of this kind cannot take."""
    if (found := unsupported_by(call["request"], call["provider"], kind, call["model"])) is not None:
        raise ProviderError(found, "no")


def turns(messages: list[Message]) -> Iterator[tuple[str, list[ContentPart]]]:
    """The messages but the system's as roles and parts, neighbouring messages of role tool as one."""
    spoken = [message for message in messages if message["role"] != "system"]
    for role, group in groupby(spoken, key=lambda message: message["role"]):
        if role == "tool":
            yield role, [part for message in group for part in message["content"]]
        else:
            yield from ((role, message["content"]) for message in group)


def base64_of(part: ContentPart) -> str:
    """The bytes of a part in base64."""
    return base64.b64encode(part["data"] or b"").decode()


def arguments_of(part: ContentPart) -> dict[str, Any]:
    """The arguments of a tool call as an object; `caller_invalid_request` where they are none."""
    return _object("tool_arguments", part["tool_arguments"] or "{}")


def schema_of(tool: Tool) -> dict[str, Any]:
    """The JSON schema of a tool's arguments; `caller_invalid_request` where it is none."""
    return _object(f"parameters of tool {tool['name']}", tool["parameters"])


def _object(field: str, text: str) -> dict[str, Any]:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as why:
        value = str(why)
    if isinstance(value, dict):
        return value
    message = f"Field {field} is not a JSON object ({str(value)[:100]}); send one in text."
    raise ProviderError(error("caller_invalid_request", message), "no")
