"""JSON schemas of answers as the providers take them; what they leave out is checked when the answer is here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

#: What OpenAI's strict mode knows (https://developers.openai.com/api/docs/guides/structured-outputs#supported-schemas).
STRICT = frozenset({
    "type", "properties", "required", "additionalProperties", "items", "enum", "const", "anyOf", "$ref", "$defs", "title",
    "description", "pattern", "format", "multipleOf", "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum",
    "minItems", "maxItems",
})  # fmt: skip
#: What Anthropic knows (https://platform.claude.com/docs/en/build-with-claude/structured-outputs#json-schema-limitations).
KNOWN = frozenset({
    "type", "properties", "required", "additionalProperties", "items", "enum", "const", "anyOf", "allOf", "$ref", "$defs",
    "definitions", "title", "description", "default",
})  # fmt: skip
FORMATS = frozenset({
    "date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid",
})  # fmt: skip
#: Those that OpenAI's strict mode knows.
STRICT_FORMATS = FORMATS - {"uri"}
MAPS, LISTS, SINGLE = ("properties", "$defs", "definitions"), ("anyOf", "allOf"), ("items",)


def strict(schema: Any) -> bool:
    """Whether OpenAI can bind an answer to the schema; to any other it only guides the model."""
    return isinstance(schema, dict) and _is(schema, "object") and "anyOf" not in schema and _strict(schema)


def _strict(schema: Any) -> bool:
    if not isinstance(schema, dict) or not schema.keys() & {"type", "$ref", "anyOf", "enum", "const"}:
        return False
    if not schema.keys() <= STRICT or schema.get("format", "uuid") not in STRICT_FORMATS:
        return False
    properties = schema.get("properties", {})
    closed = schema.get("additionalProperties") is False and set(schema.get("required", ())) == set(properties)
    return (closed or not _is(schema, "object")) and all(map(_strict, _inner(schema)))


def _is(schema: dict[str, Any], kind: str) -> bool:
    kinds = schema.get("type")
    return kind == kinds or (isinstance(kinds, list) and kind in kinds) or (kind == "object" and "properties" in schema)


def _inner(schema: dict[str, Any]) -> Iterator[Any]:
    for name in MAPS:
        yield from schema.get(name, {}).values()
    for name in LISTS:
        yield from schema.get(name, ())
    yield from (schema[name] for name in SINGLE if name in schema)


def described(schema: Any) -> Any:
    """The schema in the words that Anthropic knows; what else it says is told to the model in its descriptions.

    Objects hold nothing but their properties, as the API demands.
    """
    if not isinstance(schema, dict):
        return {}
    kept: dict[str, Any] = {}
    told: dict[str, Any] = {}
    for name, value in schema.items():
        if name in MAPS:
            kept[name] = {key: described(inner) for key, inner in value.items()}
        elif name in (*LISTS, "oneOf"):
            kept["anyOf" if name == "oneOf" else name] = [described(inner) for inner in value]
        elif name in SINGLE:
            kept[name] = described(value)
        elif name in KNOWN or (name == "format" and value in FORMATS) or (name == "minItems" and value in (0, 1)):
            kept[name] = value
        elif not name.startswith("$"):
            told[name] = value
    if _is(schema, "object"):
        kept["additionalProperties"] = False
    if told:
        kept["description"] = "\n".join([*([schema["description"]] if schema.get("description") else []), _text(told)])
    return kept


def _text(told: dict[str, Any]) -> str:
    return orjson.dumps(told).decode()[:1_000]
