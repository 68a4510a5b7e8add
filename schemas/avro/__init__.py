"""The Avro schemas, the only source of the shape of every event, ready for use.

`SCHEMAS[name]` is a self-contained Avro schema (named types are defined where they are first used) with the defaults,
docs and logical types of the `.avsc` file. `NAMES` lists the records in the order in which they build on each other.

`WRITTEN` has, a line each, the fingerprint and the canonical form of every schema that values without a schema registry may have
been written with: those here and those before them. `make generate` adds to it; what no deployment has written may be taken out.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

NAMES = (
    "LlmRequest", "LlmResponse", "LlmCall", "LlmUsage", "LlmChunk", "LlmControl", "LlmAlert", "DeadLetter",
)  # fmt: skip

Schema = dict[str, Any]


def _inlined(schema: Any, known: dict[str, Schema], seen: set[str]) -> Any:
    """`schema` with a named type defined at its first use and referred to by name afterwards, as Avro demands."""
    if isinstance(schema, str):
        if schema in known and schema not in seen:
            return _inlined(known[schema], known, seen)
        return schema
    if isinstance(schema, list):
        return [_inlined(branch, known, seen) for branch in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("type") in ("record", "enum"):
        full_name = f"{schema.get('namespace', 'millstream.v1')}.{schema['name']}"
        if full_name in seen:
            return full_name
        seen.add(full_name)
        known.setdefault(full_name, schema)
    inner = {key: _inlined(schema[key], known, seen) for key in ("type", "items", "values") if key in schema}
    if "fields" in schema:
        inner["fields"] = [{**f, "type": _inlined(f["type"], known, seen)} for f in schema["fields"]]
    return {**schema, **inner}


def _load() -> dict[str, Schema]:
    folder = Path(__file__).parent
    known: dict[str, Schema] = {}
    return {name: _inlined(json.loads((folder / f"{name}.avsc").read_text("utf-8")), known, set()) for name in NAMES}


SCHEMAS: dict[str, Schema] = _load()
WRITTEN = Path(__file__).parent / "written.jsonl"


@cache
def written() -> dict[bytes, Schema]:
    """The schemas of `WRITTEN` by the bytes of their fingerprints."""
    lines = map(json.loads, WRITTEN.read_text("utf-8").splitlines())
    return {bytes.fromhex(line["fingerprint"]): line["schema"] for line in lines}
