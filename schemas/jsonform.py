"""Events as JSON, for people and shells: times as RFC 3339 text, dates as YYYY-MM-DD, bytes as base64.

`to_json` and `from_json` follow the Avro schema, so a new field needs nothing here.
"""

from __future__ import annotations

import base64
import binascii
import copy
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Any

from schemas.avro import SCHEMAS
from schemas.cloudevents import rfc3339

EPOCH = date(1970, 1, 1)


class InvalidJson(ValueError):
    """The JSON is not an event of the wanted type; the sentence names field, value and what is wanted."""


def to_json(name: str, event: Mapping[str, Any]) -> dict[str, Any]:
    """An event as JSON-ready values; `name` is its record type."""
    found: dict[str, Any] = _to(SCHEMAS[name], event, {})
    return found


def from_json(name: str, value: Any) -> dict[str, Any]:
    """The event in a JSON object; fields left out take the schema's default.

    Raises `InvalidJson` for an unknown field, a missing one without a default, or a value of the wrong type.
    """
    found: dict[str, Any] = _from(SCHEMAS[name], value, name, {})
    return found


def _named(schema: Any, known: dict[str, Any]) -> Any:
    """The schema with a reference by name followed."""
    if isinstance(schema, str):
        return known.get(schema, schema)
    if isinstance(schema, dict) and "name" in schema:
        known[f"millstream.v1.{schema['name']}"] = schema
    return schema


def _to(schema: Any, value: Any, known: dict[str, Any]) -> Any:
    schema = _named(schema, known)
    if isinstance(schema, list):
        branch = next((b for b in schema if b != "null"), "null")
        return _to(branch, value, known) if value is not None else None
    if not isinstance(schema, dict):
        return base64.b64encode(value).decode() if schema == "bytes" else value
    logical = schema.get("logicalType")
    if logical == "timestamp-micros":
        return rfc3339(value)
    if logical == "date":
        return (EPOCH + timedelta(days=value)).isoformat()
    if schema["type"] == "record":
        return {f["name"]: _to(f["type"], value[f["name"]], known) for f in _learned(schema, known)}
    if schema["type"] == "array":
        return [_to(schema["items"], item, known) for item in value]
    return value


def _learned(schema: dict[str, Any], known: dict[str, Any]) -> list[dict[str, Any]]:
    """The record's fields, after the types that any of them defines have been noted: a null hides a definition."""
    for field in schema["fields"]:
        _note(field["type"], known)
    fields: list[dict[str, Any]] = schema["fields"]
    return fields


def _note(schema: Any, known: dict[str, Any]) -> None:
    if isinstance(schema, list):
        for branch in schema:
            _note(branch, known)
    elif isinstance(schema, dict):
        _named(schema, known)
        for key in ("type", "items", "values"):
            if isinstance(schema.get(key), dict | list):
                _note(schema[key], known)


def _from(schema: Any, value: Any, path: str, known: dict[str, Any]) -> Any:
    schema = _named(schema, known)
    if isinstance(schema, list):
        if value is None and "null" in schema:
            return None
        return _from(next(b for b in schema if b != "null"), value, path, known)
    if not isinstance(schema, dict):
        return _primitive(schema, value, path)
    logical = schema.get("logicalType")
    if logical == "timestamp-micros":
        return _time(value, path)
    if logical == "date":
        return _day(value, path)
    match schema["type"]:
        case "record":
            return _record(schema, value, path, known)
        case "array":
            if not isinstance(value, list):
                raise InvalidJson(f"{path} is {value!r}; it must be a list.")
            return [_from(schema["items"], item, f"{path}[{i}]", known) for i, item in enumerate(value)]
        case "map":
            if not isinstance(value, dict):
                raise InvalidJson(f"{path} is {value!r}; it must be an object.")
            return {key: _from(schema["values"], item, f"{path}.{key}", known) for key, item in value.items()}
        case "enum":
            if value not in schema["symbols"]:
                raise InvalidJson(f"{path} is {value!r}; it must be one of {', '.join(schema['symbols'])}.")
            return value
        case other:
            return _primitive(other, value, path)


def _record(schema: dict[str, Any], value: Any, path: str, known: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidJson(f"{path} is {value!r}; it must be an object.")
    fields = {field["name"]: field for field in _learned(schema, known)}
    if extra := sorted(value.keys() - fields.keys()):
        raise InvalidJson(f"{path} has a field {extra[0]!r}, which {schema['name']} does not have; take it out.")
    event = {}
    for name, field in fields.items():
        if name in value:
            event[name] = _from(field["type"], value[name], f"{path}.{name}", known)
        elif "default" in field:
            event[name] = copy.deepcopy(field["default"])
        else:
            raise InvalidJson(f"{path} has no field {name!r}, which is needed; add it.")
    return event


#: Python types that a JSON value may have for an Avro primitive; bool is an int in Python but not in Avro.
_WANTED: dict[str, tuple[type, ...]] = {
    "string": (str,), "boolean": (bool,), "int": (int,), "long": (int,), "double": (float, int), "float": (float, int),
}  # fmt: skip


_BITS = {"long": 63, "int": 31}


def _primitive(kind: str, value: Any, path: str) -> Any:
    if kind == "bytes":
        try:
            return base64.b64decode(value, validate=True)
        except (TypeError, binascii.Error, ValueError):
            raise InvalidJson(f"{path} is not base64 text; encode the bytes.") from None
    if not isinstance(value, _WANTED[kind]) or (isinstance(value, bool) and kind != "boolean"):
        raise InvalidJson(f"{path} is {value!r}; it must be of type {kind}.")
    if kind in _BITS and not -(2 ** _BITS[kind]) <= value < 2 ** _BITS[kind]:
        raise InvalidJson(f"{path} is {value!r}; it does not fit a {kind}.")
    return value


def _time(value: Any, path: str) -> int:
    """Microseconds since 1970 from RFC 3339 text, or as they are."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    try:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise ValueError
    except (TypeError, ValueError):
        raise InvalidJson(
            f"{path} is {value!r}; it must be a time with a zone such as 2026-11-21T10:58:00Z, or microseconds since 1970."
        ) from None
    return round(moment.timestamp() * 1_000_000)


def _day(value: Any, path: str) -> int:
    """Days since 1970 from YYYY-MM-DD."""
    try:
        return (date.fromisoformat(value) - EPOCH).days
    except (TypeError, ValueError):
        raise InvalidJson(f"{path} is {value!r}; it must be a date such as 2026-11-21.") from None
