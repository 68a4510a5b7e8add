"""The codec: real examples, known fingerprints, old and new schemas, and bytes that are no event."""

from __future__ import annotations

import contextlib
import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.generate import generated
from schemas.avro import NAMES, SCHEMAS
from schemas.cloudevents import headers, rfc3339, trace_of
from schemas.codec import Codec, SchemaNotLoaded, Undecodable, fingerprint_of
from schemas.jsonform import from_json, to_json
from tests.examples import request, written

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = sorted((ROOT / "schemas" / "examples").glob("*/*.json"))
CODEC = Codec()


def test_every_record_has_examples() -> None:
    """Each schema stands beside at least two real examples."""
    found = {path.parent.name for path in EXAMPLES}
    assert found == set(NAMES)
    assert all(sum(path.parent.name == name for path in EXAMPLES) >= 2 for name in NAMES)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_an_example_survives_the_wire_and_json(path: Path) -> None:
    """An example encodes, decodes to itself, and reads the same as JSON."""
    name = path.parent.name
    shown = json.loads(path.read_text())
    event = from_json(name, shown)
    assert CODEC.decode(name, CODEC.encode(name, event)) == event
    assert to_json(name, event) == shown


def test_generated_files_are_what_the_schemas_say() -> None:
    """A change of a schema without `make generate` is noticed."""
    stale = [str(path) for path, text in generated().items() if path.read_text() != text]
    assert stale == [], "run `make generate`"


def test_every_field_is_documented() -> None:
    """No field of any event lacks a sentence on what it means."""

    def undocumented(schema: Any, path: str) -> list[str]:
        if isinstance(schema, list):
            return [found for branch in schema for found in undocumented(branch, path)]
        if not isinstance(schema, dict):
            return []
        inner = [
            found for key in ("type", "items", "values") if key in schema for found in undocumented(schema[key], path)
        ]
        for field in schema.get("fields", ()):
            place = f"{path}.{field['name']}"
            inner += undocumented(field["type"], place)
            inner += [] if str(field.get("doc", "")).endswith(".") else [place]
        return inner

    assert [found for name in NAMES for found in undocumented(SCHEMAS[name], name)] == []


def test_fingerprints_are_those_of_the_specification() -> None:
    """CRC-64-AVRO of "null" and "int" as Avro's own test data gives them, in little-endian order.

    Source: https://github.com/apache/avro/blob/main/share/test/data/schema-tests.txt
    """
    assert int.from_bytes(fingerprint_of("null"), "little") == 7195948357588979594  # type: ignore[arg-type]
    assert int.from_bytes(fingerprint_of("int"), "little") == 8247732601305521295  # type: ignore[arg-type]


def test_docs_and_logical_types_do_not_change_a_fingerprint() -> None:
    """A better sentence in a schema does not make old values unreadable."""
    changed = copy.deepcopy(SCHEMAS["DeadLetter"])
    changed["doc"] = changed["fields"][0]["doc"] = "Another sentence."
    assert fingerprint_of(changed) == fingerprint_of(SCHEMAS["DeadLetter"])


def older_and_newer() -> tuple[dict[str, Any], dict[str, Any]]:
    older, newer = copy.deepcopy(SCHEMAS["LlmRequest"]), copy.deepcopy(SCHEMAS["LlmRequest"])
    older["fields"] = [f for f in older["fields"] if f["name"] != "plan"]
    newer["fields"].append({"name": "mood", "type": "string", "default": "calm", "doc": "New."})
    return older, newer


def test_older_and_newer_writers_are_read() -> None:
    """A value without a field gets its default, a value with a field unknown here is read without it."""
    older, newer = older_and_newer()
    writer = Codec(older=(older, newer))
    for schema in (older, newer):
        value = written(schema, {**request(), "mood": "wild"})
        assert writer.decode("LlmRequest", value)["plan"] is None
        assert "mood" not in writer.decode("LlmRequest", value)


class Registry:
    """A registry in memory, for the wire form alone; the real one is tested in tests/stack."""

    def __init__(self) -> None:
        self.schemas = {7: SCHEMAS["LlmRequest"]}

    def schema_of(self, schema_id: int) -> Any:
        return self.schemas.get(schema_id)

    def id_of(self, subject: str, schema: Any) -> int:
        return 7


def test_confluent_wire_format_names_the_schema_by_id() -> None:
    """With a registry the value begins with 0 and the id; an id that is new here is to be loaded off the loop."""
    writer, reader = Codec(Registry()), Codec(Registry())
    writer.register({"LlmRequest": "llm.requests.v1-value"})
    value = writer.encode("LlmRequest", request())
    assert value[:5] == b"\x00\x00\x00\x00\x07"
    with pytest.raises(SchemaNotLoaded):
        reader.decode("LlmRequest", value)
    assert reader.decode_blocking("LlmRequest", value)["model"] == "openai/gpt-5-mini"
    with pytest.raises(Undecodable, match="no schema with id 8"):
        reader.decode_blocking("LlmRequest", b"\x00\x00\x00\x00\x08" + value[5:])


GOOD = CODEC.encode("LlmRequest", request())


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (None, "tombstone"), (b"", "empty"), (b"{}", "neither"), (b"\xc3\x01", "neither"),
        (b"\xc3\x01" + b"\x00" * 8 + b"x", "fingerprint 0000000000000000"), (b"\x00\x00\x00\x00\x09x", "no schema registry"),
        (GOOD[:-3], "not a valid LlmRequest"), (GOOD + b"x", "left over"),
        (CODEC.encode("DeadLetter", from_json("DeadLetter", json.loads(EXAMPLES[0].read_text())))
         if EXAMPLES and EXAMPLES[0].parent.name == "DeadLetter" else b"\xc3\x01" + b"\x01" * 9, "not a valid|fingerprint"),
    ],
)  # fmt: skip
def test_bytes_that_are_no_request_are_refused_with_the_reason(value: bytes | None, why: str) -> None:
    """Each way of being undecodable has its own sentence."""
    with pytest.raises(Undecodable, match=why):
        CODEC.decode("LlmRequest", value)


@given(st.binary(max_size=200))
def test_no_bytes_make_the_codec_fail_otherwise(noise: bytes) -> None:
    """Whatever follows a valid prefix, the codec decodes it or says Undecodable, nothing else."""
    for value in (noise, GOOD[:10] + noise, GOOD[: len(GOOD) // 2] + noise):
        with contextlib.suppress(Undecodable):
            assert CODEC.decode("LlmRequest", value)["request_id"] is not None


def test_headers_are_cloudevents_with_the_callers_trace() -> None:
    """Binary mode with its five attributes; a caller's trace goes on, a missing one is made from the request id."""
    mine = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert trace_of([("traceparent", mine)], "r") == mine
    assert trace_of([("traceparent", b"nonsense")], "r") == trace_of([], "r")
    found = dict(headers("LlmUsage", "id-1", "complete", 1_795_258_680_123_456, mine))
    assert found["ce_specversion"] == b"1.0"
    assert found["ce_type"] == b"millstream.v1.LlmUsage"
    assert found["ce_time"] == b"2026-11-21T10:58:00.123456Z" == rfc3339(1_795_258_680_123_456).encode()
    assert found["content-type"] == b"application/avro"
