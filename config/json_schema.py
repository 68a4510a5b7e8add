"""JSON schemas as tasks use them: values are checked, and what is wrong is said in one sentence."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from jsonschema import Draft202012Validator, SchemaError, ValidationError, validators
from referencing import Registry

from config.json_strings import FORMATS, begin, follow_pattern, matcher
from core.json_depth import deeper_than

#: Objects and lists within each other, in a value.
DEEPEST = 32
_SHOWN = 80
#: Of a value with very many mistakes, only the first are looked at.
_MOST_MISTAKES = 20
_Validator: Any = validators.extend(Draft202012Validator, {"pattern": follow_pattern})  # type: ignore[no-untyped-call]


class Schema:
    """A JSON schema (2020-12) of an object; ValueError says in one sentence why it cannot be used."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        try:
            Draft202012Validator.check_schema(schema)
        except SchemaError as problem:
            raise ValueError(f"is no JSON schema: {problem.json_path} {problem.message[:200]}") from None
        for pattern in _texts(schema, "pattern"):
            try:
                matcher(pattern)
            except ValueError as problem:
                raise ValueError(f"has the pattern {pattern[:100]!r}, which {problem}") from None
        for reference in _texts(schema, "$ref", "$dynamicRef"):
            if not reference.startswith("#") or resolved({"$ref": reference}, schema) is None:
                raise ValueError(f"refers to {reference!r}, which is not in the file; write #/$defs/NAME")
        if schema.get("type") != "object" or not isinstance(schema.get("properties"), dict):
            raise ValueError("must be of type object and name its properties")
        self.schema = schema
        # A registry of nothing: a schema never makes anybody fetch another.
        self._validator = _Validator(schema, registry=Registry(), format_checker=FORMATS)

    def problem(self, value: Any, name: str) -> str | None:
        """What is wrong with a value that the caller knows as `name`, or None; names the field and what it must be."""
        if deeper_than(DEEPEST, value):
            return f"Field {name} is nested deeper than {DEEPEST} levels; make it flatter."
        begin()
        try:
            found = list(islice(self._validator.iter_errors(value), _MOST_MISTAKES))
        except RecursionError:
            return f"Field {name} is too long to be held against its schema's patterns; make it shorter."
        return _sentence(min(found, key=lambda mistake: len(mistake.absolute_path)), name) if found else None

    def completed(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """A value that follows the schema, with each property that it leaves out at its default, else null."""
        found: dict[str, Any] = _completed(self.schema, value, self.schema)
        return found


def resolved(schema: Any, root: Mapping[str, Any]) -> dict[str, Any] | None:
    """The schema with a reference into `root` followed; None for what is no schema with keywords."""
    for _ in range(20):
        if not isinstance(schema, dict):
            return None
        if "$ref" not in schema:
            return schema
        found: Any = root
        for step in str(schema["$ref"]).removeprefix("#").strip("/").split("/"):
            found = found.get(step) if isinstance(found, dict) else None
        schema = found
    return None


def property_of(schema: Mapping[str, Any], name: str, root: Mapping[str, Any]) -> dict[str, Any] | None:
    """The schema of a property; None where nothing is said of it."""
    return resolved(schema.get("properties", {}).get(name), root)


def _texts(schema: Any, *names: str) -> Iterator[str]:
    """What stands under these keywords, at any depth."""
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key in names and isinstance(value, str):
                yield value
            yield from _texts(value, *names)
    elif isinstance(schema, list):
        for item in schema:
            yield from _texts(item, *names)


def _completed(schema: Any, value: Any, root: Mapping[str, Any]) -> Any:
    schema = resolved(schema, root) or {}
    if isinstance(value, dict):
        named = schema.get("properties", {})
        left_out = {
            name: (resolved(inner, root) or {}).get("default") for name, inner in named.items() if name not in value
        }
        return {name: _completed(named.get(name), inner, root) for name, inner in value.items()} | left_out
    if isinstance(value, list) and schema.get("items"):
        return [_completed(schema["items"], item, root) for item in value]
    return value


def _sentence(mistake: ValidationError, name: str) -> str:
    path = name + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in mistake.absolute_path)
    path = _short(path)
    asked: Any = mistake.validator_value
    within: Any = mistake.schema
    value: Any = mistake.instance
    match mistake.validator:
        case "required":
            missing = next(each for each in asked if each not in value)
            return f"Field {path}.{missing} is missing; add it."
        case "dependentRequired":
            given, missing = next((k, n) for k, names in asked.items() if k in value for n in names if n not in value)
            return f"Field {path}.{missing} is missing; {given} needs it beside itself."
        case "additionalProperties":
            known = sorted(within.get("properties", {}))
            extra = next(each for each in value if each not in known)
            near = difflib.get_close_matches(extra, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}."
            return f"Field {path}.{_short(extra)} is not known; {hint}"
        case "anyOf" if all(set(each) == {"required"} for each in asked):
            ways = "; or ".join(" and ".join(each["required"]) for each in asked)
            return f"Field {path} has too little; give {ways}."
        case "type":
            kinds = asked if isinstance(asked, str) else " or ".join(asked)
            return f"Field {path} is {_short(repr(value))}; it must be of type {kinds}."
        case "enum":
            return f"Field {path} is {_short(repr(value))}; it must be one of {', '.join(map(str, asked))}."
        case keyword:
            return f"Field {path} is {_short(repr(value))}; its schema asks for {keyword} {_short(repr(asked))}."


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
