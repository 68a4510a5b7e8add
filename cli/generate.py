"""Write what is generated from the Avro schemas: `python -m cli.generate` (or `--check`, which fails on drift).

Generated: `schemas/events.py`, a TypedDict for every record, `docs/events.md`, the reference of every field, and the lines of
`schemas/avro/written.jsonl` for schemas that are new. TypedDicts
because an event then is what the codec reads and writes, without a second copy on the way.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from core.errors import CODES
from schemas.avro import NAMES, SCHEMAS, WRITTEN
from schemas.codec import canonical_form, fingerprint_of, without_logical_types

ROOT = Path(__file__).parent.parent
HEADER = '"""The types of the events, generated from `schemas/avro/*.avsc` by `make generate`; do not edit."""\n'


def _without_defaults(schema: Any) -> Any:
    """A decoded event has every field, so none of them is optional in the Python type."""
    if isinstance(schema, list):
        return [_without_defaults(branch) for branch in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: _without_defaults(value) for key, value in schema.items() if key != "default"}


def _defined(schema: Any, found: dict[str, Any]) -> dict[str, Any]:
    """Every record and enum that a schema defines, by name, inner ones first."""
    if isinstance(schema, list):
        for branch in schema:
            _defined(branch, found)
    elif isinstance(schema, dict):
        for key in ("type", "items", "values"):
            if isinstance(schema.get(key), dict | list):
                _defined(schema[key], found)
        for field in schema.get("fields", ()):
            _defined(field["type"], found)
        if schema.get("type") in ("record", "enum"):
            found.setdefault(schema["name"], schema)
    return found


def python_types() -> str:
    """The text of `schemas/events.py`."""
    files = [json.loads((ROOT / "schemas" / "avro" / f"{name}.avsc").read_text()) for name in NAMES]
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "events.avsc"), Path(folder, "events.py")
        source.write_text(json.dumps(_without_defaults(without_logical_types(files))))
        subprocess.run(
            [sys.executable, "-m", "datamodel_code_generator", "--input", str(source), "--input-file-type", "avro",
             "--output-model-type", "typing.TypedDict", "--output", str(target), "--target-python-version", "3.11",
             "--use-union-operator", "--use-standard-collections", "--use-schema-description",
             "--use-field-description", "--disable-timestamp", "--formatters", "builtin"],
            check=True, capture_output=True,
        )  # fmt: skip
        body = "\n".join(line for line in target.read_text().split("\n") if not line.startswith("#"))
    return HEADER + "\n" + body.strip() + "\n"


def _type_text(type_: Any) -> str:
    if isinstance(type_, list):
        return " or ".join(_type_text(branch) for branch in type_)
    if isinstance(type_, dict):
        if "logicalType" in type_:
            return f"{type_['type']} ({type_['logicalType']})"
        if type_["type"] == "array":
            return f"array of {_type_text(type_['items'])}"
        if type_["type"] == "map":
            return f"map of {_type_text(type_['values'])}"
        return str(type_["name"])
    return str(type_).removeprefix("millstream.v1.")


def _reference() -> Iterator[str]:
    yield "# Events\n"
    yield "Generated from `schemas/avro/*.avsc` and `core/errors.py` by `make generate`; do not edit.\n"
    yield "Times are microseconds since 1970-01-01 UTC, money is an integer of nano-USD, ids are text.\n"
    found: dict[str, Any] = {}
    for name in NAMES:
        _defined(SCHEMAS[name], found)
    inner = sorted(set(found) - set(NAMES))
    for name in (*NAMES, *inner):
        schema = found[name]
        yield f"## {name}\n"
        yield schema["doc"] + "\n"
        if schema["type"] == "enum":
            yield "One of " + ", ".join(f"`{symbol}`" for symbol in schema["symbols"]) + ".\n"
            continue
        yield "| field | type | meaning |\n|---|---|---|"
        for field in schema["fields"]:
            yield f"| `{field['name']}` | {_type_text(field['type'])} | {field['doc']} |"
        yield ""
    yield "## Error codes\n"
    yield "| code | a retry can help | meaning |\n|---|---|---|"
    for code, kind in CODES.items():
        yield f"| `{code}` | {'yes' if kind.retryable else 'no'} | {kind.meaning} |"
    yield ""


def _written() -> str:
    """The schemas that were written before, and those of now behind them."""
    lines = WRITTEN.read_text().splitlines() if WRITTEN.exists() else []
    for schema in SCHEMAS.values():
        line = json.dumps(
            {"fingerprint": fingerprint_of(schema).hex(), "schema": canonical_form(schema)}, separators=(",", ":")
        )
        if line not in lines:
            lines.append(line)
    return "\n".join(lines) + "\n"


def generated() -> dict[Path, str]:
    """Every generated file and the text it should hold."""
    return {
        ROOT / "schemas" / "events.py": python_types(),
        ROOT / "docs" / "events.md": "\n".join(_reference()),
        WRITTEN: _written(),
    }


def main() -> int:
    stale = [path for path, text in generated().items() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is out of date: run `make generate` and commit the result.")
        return 1 if stale else 0
    for path, text in generated().items():
        path.write_text(text)
    print(f"{len(stale)} generated files changed.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
