"""A value that a JSON schema allows: what a structured answer or a tool's arguments say."""

from __future__ import annotations

from typing import Any

DEEP = 6
WORD = "lorem"
FORMATS = {
    "date-time": "2026-01-01T00:00:00Z", "date": "2026-01-01", "time": "00:00:00Z", "duration": "PT1S",
    "email": "lorem@example.com", "hostname": "example.com", "ipv4": "192.0.2.1", "ipv6": "2001:db8::1",
    "uri": "https://example.com/", "uuid": "00000000-0000-4000-8000-000000000000",
}  # fmt: skip


def sample(schema: Any, root: Any = None, depth: int = 0) -> Any:
    """The same value for the same schema; `pattern` and contradictions are not looked at.

    Takes JSON Schema and Gemini's form of it, whose types are in capitals. Below a depth of 6 optional properties
    and items are left out, which ends recursive schemas.
    """
    root = schema if root is None else root
    schema = _resolved(schema, root, depth)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for several in ("anyOf", "oneOf"):
        if schema.get(several):
            options = schema[several]
            return sample(options[-1 if depth > DEEP else 0], root, depth + 1)
    kinds = schema.get("type") or ("object" if "properties" in schema else "string")
    kind = next((k for k in kinds if k != "null"), "null") if isinstance(kinds, list) else str(kinds)
    match kind.lower():
        case "object":
            return _object(schema, root, depth)
        case "array":
            items = int(schema.get("minItems") or 0) or (1 if depth <= DEEP else 0)
            return [sample(schema.get("items") or {}, root, depth + 1) for _ in range(items)]
        case "integer":
            return int(_number(schema))
        case "number":
            return _number(schema)
        case "boolean":
            return True
        case "null":
            return None
        case _:
            return _string(schema)


def _resolved(schema: Any, root: Any, depth: int) -> dict[str, Any]:
    for _ in range(20):
        if not isinstance(schema, dict):
            return {}
        if "$ref" in schema:
            found = root
            for step in str(schema["$ref"]).removeprefix("#").strip("/").split("/"):
                found = found.get(step, {}) if isinstance(found, dict) and step else found
            schema = found if depth <= 3 * DEEP else {"type": "null"}
        elif "allOf" in schema:
            rest = {key: value for key, value in schema.items() if key != "allOf"}
            for part in schema["allOf"]:
                part = _resolved(part, root, depth)
                properties = rest.get("properties", {}) | part.get("properties", {})
                rest = part | rest | ({"properties": properties} if properties else {})
            schema = rest
        else:
            return schema
    return {}


def _object(schema: dict[str, Any], root: Any, depth: int) -> dict[str, Any]:
    properties = schema.get("properties") or {}
    names = properties if depth <= DEEP else [name for name in schema.get("required") or () if name in properties]
    return {name: sample(properties[name], root, depth + 1) for name in names}


def _number(schema: dict[str, Any]) -> float:
    least = schema.get("minimum")
    if schema.get("exclusiveMinimum") is not None:
        least = schema["exclusiveMinimum"] + 1
    most = schema.get("maximum", schema.get("exclusiveMaximum"))
    value = schema.get("multipleOf") or 1
    if least is not None and value < least:
        value = least
    return value if most is None or value < most else most - ("exclusiveMaximum" in schema)


def _string(schema: dict[str, Any]) -> str:
    text = FORMATS.get(str(schema.get("format")), WORD)
    least, most = int(schema.get("minLength") or 0), schema.get("maxLength")
    text = text.ljust(least, "x")
    return text if most is None else text[: int(most)]
