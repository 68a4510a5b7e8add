"""Conversations and tools in the terms of generateContent (https://ai.google.dev/api/caching#Content)."""

from __future__ import annotations

from typing import Any

from agents.providers.parts import arguments_of, base64_of, schema_of, turns
from core.conversation import json_of
from core.features import old_gemini
from schemas.events import ContentPart, LlmCall, LlmRequest

#: Gemini's name where it is not the registered one (https://ai.google.dev/gemini-api/docs/audio#supported-formats).
MEDIA_TYPE = {"audio/mpeg": "audio/mp3"}
MODE = {"auto": "AUTO", "none": "NONE", "required": "ANY"}
#: Stands for the signature of a call that the model did not make in this conversation, or whose signature is lost
#: (https://ai.google.dev/gemini-api/docs/thought-signatures#faqs).
NO_SIGNATURE = {"thoughtSignature": "skip_thought_signature_validator"}


def contents_of(call: LlmCall) -> list[dict[str, Any]]:
    """The conversation without its system messages; a tool's result stands under the name of the tool that was called."""
    signature = {} if old_gemini("google", call["model"]) else NO_SIGNATURE
    contents: list[dict[str, Any]] = []
    #: The tools that were called last, by the ids of the calls, which may come again in a later turn.
    names: dict[str | None, str | None] = {}
    for role, parts in turns(call["request"]["messages"]):
        names |= {part["tool_call_id"]: part["tool_name"] for part in parts if part["type"] == "tool_call"}
        said = [_part(part, names, signature) for part in parts]
        contents.append({"role": "model" if role == "assistant" else "user", "parts": said})
    return contents


def _part(part: ContentPart, names: dict[str | None, str | None], signature: dict[str, str]) -> dict[str, Any]:
    call_id = part["tool_call_id"]
    match part["type"]:
        case "image" | "audio" | "file":
            return _media(part)
        case "tool_call":
            function = {"id": call_id, "name": part["tool_name"], "args": arguments_of(part)}
            return {"functionCall": function} | signature
        case "tool_result":
            said = json_of(part["text"] or "")
            response = said if isinstance(said, dict) else {"output": part["text"]}
            return {"functionResponse": {"id": call_id, "name": names.get(call_id), "response": response}}
        case _:
            return {"text": part["text"]}


def _media(part: ContentPart) -> dict[str, Any]:
    media_type = MEDIA_TYPE.get(part["media_type"] or "", part["media_type"])
    typed = {"mimeType": media_type} if media_type is not None else {}
    if part["url"] is not None:
        return {"fileData": {**typed, "fileUri": part["url"]}}
    return {"inlineData": {**typed, "data": base64_of(part)}}


def tools_of(request: LlmRequest) -> dict[str, Any]:
    """The fields that offer the request's tools (https://ai.google.dev/gemini-api/docs/function-calling); none without."""
    if not request["tools"]:
        return {}
    functions = [
        {"name": tool["name"], "parametersJsonSchema": schema_of(tool)}
        | ({"description": tool["description"]} if tool["description"] is not None else {})
        for tool in request["tools"]
    ]
    tools = [{"functionDeclarations": functions}]
    choice = request["tool_choice"]
    if choice is None:
        return {"tools": tools}
    calling = {"mode": MODE[choice]} if choice in MODE else {"mode": "ANY", "allowedFunctionNames": [choice]}
    return {"tools": tools, "toolConfig": {"functionCallingConfig": calling}}
