"""What the turns of Messages hold, checked as Anthropic does (https://docs.anthropic.com/en/api/messages)."""

from __future__ import annotations

from typing import Any

from local.simulator.calls import Json, Refused
from local.simulator.media import Media, decoded, is_what_it_says

TAKEN = {
    "image": ("image/jpeg", "image/png", "image/gif", "image/webp"),
    "document": ("application/pdf",),
}
BLOCKS = (*TAKEN, "text", "tool_use", "tool_result", "thinking", "redacted_thinking")


def media_in(messages: list[Json]) -> Media:
    """The media of all messages; `Refused` for one that is not what it says."""
    media = Media(image=1_334, page=2_000, audio_second=0)
    for number, message in enumerate(messages):
        for at, block in enumerate(blocks_of(message)):
            kind = block.get("type")
            if kind not in BLOCKS:
                told = f"Input tag '{kind}' found using 'type' does not match any of the expected tags"
                raise Refused(400, f"messages.{number}.content.{at}: {told}")
            if kind in TAKEN:
                _count(block["source"], kind, f"messages.{number}.content.{at}.{kind}.source", media)
    return media


def blocks_of(message: Json) -> list[Json]:
    """The blocks of a message; none where its content is a text."""
    content = message["content"]
    return content if isinstance(content, list) else []


def _count(source: Json, kind: str, place: str, media: Media) -> None:
    if source["type"] == "url":
        if not str(source["url"]).startswith("https://"):
            raise Refused(400, f"{place}.url.url: Only HTTPS URLs are supported.")
        media.count(TAKEN[kind][0], None)
        return
    media_type, data = source.get("media_type"), decoded(source.get("data"))
    if media_type not in TAKEN[kind]:
        wanted = ", ".join(f"'{each}'" for each in TAKEN[kind])
        raise Refused(400, f"{place}.base64.media_type: Input should be {wanted}")
    if data is None:
        raise Refused(400, f"{place}.base64.data: Invalid base64 data")
    if not is_what_it_says(data, media_type):
        raise Refused(400, f"{place}.base64.data: The file does not match the provided media type {media_type}")
    media.count(media_type, data)


def check_tool_turns(messages: list[Json]) -> None:
    """`Refused` where a tool call has no result in the next turn, or a result no call in the one before it."""
    asked: list[str] = []
    for number, message in enumerate([*_joined(messages), {"role": "end", "content": []}]):
        results = [block["tool_use_id"] for block in blocks_of(message) if block.get("type") == "tool_result"]
        if unexpected := [each for each in results if each not in asked]:
            told = f"unexpected `tool_use_id` found in `tool_result` blocks: {unexpected[0]}. Each `tool_result` block must have a corresponding `tool_use` block in the previous message."
            raise Refused(400, f"messages.{number}.content.0: {told}")
        if missing := [each for each in asked if each not in results]:
            told = f"`tool_use` ids were found without `tool_result` blocks immediately after: {', '.join(missing)}. Each `tool_use` block must have a corresponding `tool_result` block in the next message."
            raise Refused(400, f"messages.{number - 1}: {told}")
        asked = [block["id"] for block in blocks_of(message) if block.get("type") == "tool_use"]


def _joined(messages: list[Json]) -> list[Json]:
    """The messages with neighbours of one role as one turn, which is how the API takes them."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        if turns and turns[-1]["role"] == message["role"]:
            turns[-1]["content"] = [*turns[-1]["content"], *blocks_of(message)]
        else:
            turns.append({"role": message["role"], "content": blocks_of(message)})
    return turns


def check_schema(schema: Json) -> None:
    """`Refused` for what a schema may not hold (https://platform.claude.com/docs/en/build-with-claude/structured-outputs)."""
    kind = schema.get("type")
    bounds = (
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minLength",
        "maxLength",
        "maxItems",
    )
    if unknown := [
        name for name in (*bounds, "uniqueItems", "oneOf", "not", "if", "patternProperties") if name in schema
    ]:
        raise Refused(
            400, f"output_config.format.schema: For '{kind}' type, properties {', '.join(unknown)} are not supported"
        )
    if schema.get("minItems", 0) not in (0, 1):
        raise Refused(
            400, "output_config.format.schema: For 'array' type, 'minItems' values other than 0 or 1 are not supported"
        )
    if "object" in str(kind) and schema.get("additionalProperties") is not False:
        told = "For 'object' type, 'additionalProperties' must be explicitly set to false"
        raise Refused(400, f"output_config.format.schema: {told}")
    inner = [*schema.get("properties", {}).values(), *schema.get("$defs", {}).values(), *schema.get("anyOf", ())]
    for each in [*inner, *schema.get("allOf", ()), *([schema["items"]] if "items" in schema else ())]:
        check_schema(each)
