"""Whether the turns of a conversation follow from one another: roles, parts, tools, tool calls and their results."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from core.json_depth import DEEPEST_OF_REQUESTS, deeper_than
from core.media import MEDIA_TYPES, invalid_media
from schemas.events import ContentPart, LlmRequest, Message, Tool

Invalid = Iterator[tuple[str, object, str]]

#: What each role may say.
PART_TYPES = {
    "system": ("text",),
    "user": ("text", "image", "audio", "file"),
    "assistant": ("text", "tool_call"),
    "tool": ("tool_result",),
}
TOOL_CHOICES = ("auto", "none", "required")
#: A name and a number of tools that every provider takes: OpenAI's are the narrowest, but that Gemini's names begin with a
#: letter or an underscore (https://platform.openai.com/docs/api-reference/chat/create, https://ai.google.dev/api/caching#FunctionDeclaration).
TOOL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
MOST_TOOLS = 128
LONGEST_TOOL_CALL_ID = 256


def invalid_messages(messages: list[Message]) -> Invalid:
    """What is wrong with the messages: field, value, and what it must be."""
    open_calls: dict[str, str] = {}
    for number, message in enumerate(messages):
        name = f"messages[{number}]"
        if message["role"] not in PART_TYPES:
            yield f"{name}.role", message["role"], f"one of {', '.join(PART_TYPES)}"
            continue
        if not message["content"]:
            yield f"{name}.content", "empty", "at least one part"
        if message["role"] != "tool":
            yield from _unanswered(open_calls)
            open_calls = {}
        for at, part in enumerate(message["content"]):
            yield from _invalid_part(f"{name}.content[{at}]", message["role"], part, open_calls)
    yield from _unanswered(open_calls)


def _invalid_part(name: str, role: str, part: ContentPart, open_calls: dict[str, str]) -> Invalid:
    kind = part["type"]
    if kind not in PART_TYPES[role]:
        yield f"{name}.type", kind, f"one of {', '.join(PART_TYPES[role])} in a message of role {role}"
    elif kind in MEDIA_TYPES:
        yield from invalid_media(name, part)
    elif kind == "tool_call":
        yield from _invalid_call(name, part, open_calls)
    elif part["text"] is None:
        yield f"{name}.text", None, "the text of the part" if kind == "text" else "the result of the tool call"
    elif kind == "tool_result" and open_calls.pop(part["tool_call_id"] or "", None) is None:
        wanted = "the id of a tool call of the assistant's message before it, each answered once"
        yield f"{name}.tool_call_id", part["tool_call_id"], wanted


def _invalid_call(name: str, part: ContentPart, open_calls: dict[str, str]) -> Invalid:
    call_id, tool = part["tool_call_id"], part["tool_name"]
    if not call_id or len(call_id) > LONGEST_TOOL_CALL_ID or call_id in open_calls:
        yield f"{name}.tool_call_id", call_id, f"an id of at most {LONGEST_TOOL_CALL_ID} characters, each used once"
    elif not TOOL_NAME.fullmatch(tool or ""):
        yield f"{name}.tool_name", tool, "the name of a tool: letters, digits, _ and -, at most 64"
    elif not isinstance(json_of(part["tool_arguments"] or "{}"), dict):
        yield f"{name}.tool_arguments", part["tool_arguments"], "a JSON object in text"
    else:
        open_calls[call_id] = name


def _unanswered(open_calls: dict[str, str]) -> Invalid:
    for call_id, name in open_calls.items():
        yield f"{name}.tool_call_id", call_id, "answered by a tool_result in a message of role tool right behind it"


def invalid_tools(request: LlmRequest) -> Invalid:
    """What is wrong with the tools and with the choice among them: field, value, and what it must be."""
    tools, choice = request["tools"], request["tool_choice"]
    if len(tools) > MOST_TOOLS:
        yield "tools", f"a list of {len(tools)} tools", f"one of at most {MOST_TOOLS}"
    names: set[str] = set()
    for number, tool in enumerate(tools):
        yield from _invalid_tool(f"tools[{number}]", tool, names)
        names.add(tool["name"])
    if choice is not None and choice not in names and (choice not in TOOL_CHOICES or not tools):
        yield "tool_choice", choice, f"{', '.join(TOOL_CHOICES)} or the name of one of the request's tools"


def _invalid_tool(name: str, tool: Tool, earlier: set[str]) -> Invalid:
    if not TOOL_NAME.fullmatch(tool["name"]) or tool["name"] in TOOL_CHOICES:
        wanted = f"letters, digits, _ and -, at most 64, a letter or _ first, and none of {', '.join(TOOL_CHOICES)}"
        yield f"{name}.name", tool["name"], wanted
    elif tool["name"] in earlier:
        yield f"{name}.name", tool["name"], "a name that no other tool of the request has"
    schema = json_of(tool["parameters"])
    if not isinstance(schema, dict) or schema.get("type") != "object":
        yield f"{name}.parameters", tool["parameters"], 'a JSON schema in text whose type is "object"'


def json_of(text: str) -> Any:
    """The value of a JSON text; None where it is none, or is nested too deeply to be sent on."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return None if deeper_than(DEEPEST_OF_REQUESTS, value) else value
