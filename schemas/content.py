"""What an event says, apart from how its schema stands: the same bytes when the schema gains fields that the event does not use."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from typing import Any

import orjson

from schemas.avro import Schema

#: The part of a value that is not the default of its fields.
_Said = Callable[[Any], Any]
_REQUIRED = object()


class Content:
    """The content of events of one schema as bytes, equal for two events only when they say the same.

    Fields that hold their default say nothing, and neither do those named in `without`; the order of a map does not count.
    """

    def __init__(self, schema: Schema, without: Collection[str] = ()) -> None:
        self._said = _of_record({**schema, "fields": [f for f in schema["fields"] if f["name"] not in without]})

    def of(self, event: Mapping[str, Any]) -> bytes:
        """The content of a whole event, every field present."""
        return orjson.dumps(self._said(event), default=_digest, option=orjson.OPT_SORT_KEYS)


def _of_record(schema: Schema) -> _Said:
    fields = [(f["name"], f.get("default", _REQUIRED), _of(f["type"])) for f in schema["fields"]]

    def said(record: Mapping[str, Any]) -> dict[str, Any]:
        found = {}
        for name, default, inner in fields:
            value = record[name]
            if value == default:
                continue
            if inner is not None:
                value = inner(value)
                if not value and default is not _REQUIRED:
                    continue
            found[name] = value
        return found

    return said


def _of(kind: Any) -> _Said | None:
    """What to take of values of this type; None for all of it."""
    if isinstance(kind, list):
        inner = next(filter(None, map(_of, kind)), None)
        return inner and (lambda value: None if value is None else inner(value))
    match kind:
        case {"type": "record"}:
            return _of_record(kind)
        case {"type": "array", "items": items} if (each := _of(items)) is not None:
            return lambda values: [each(value) for value in values]
    return None


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
