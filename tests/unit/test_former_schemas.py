"""Values that an earlier version wrote without a schema registry: they stay readable, for as long as topics may keep them."""

from __future__ import annotations

import random
from io import BytesIO
from typing import Any

import pytest
from fastavro import schemaless_writer
from fastavro.utils import generate_one

from schemas.avro import SCHEMAS, Schema, written
from schemas.codec import SINGLE_OBJECT_MAGIC, Codec, Undecodable, canonical_form, fingerprint_of

ALL = written()
NAMES = {mark: schema["name"].rpartition(".")[2] for mark, schema in ALL.items()}
FORMER = sorted((name, mark) for mark, name in NAMES.items() if mark != fingerprint_of(SCHEMAS[name]))


def test_the_file_has_every_schema_of_now_and_some_of_before() -> None:
    """Each line's fingerprint is that of its schema; a schema that was changed without `make generate` is missing here."""
    assert {mark: fingerprint_of(schema) for mark, schema in ALL.items()} == {mark: mark for mark in ALL}
    assert {fingerprint_of(schema): canonical_form(schema) for schema in SCHEMAS.values()}.items() <= ALL.items()
    assert {name for name, _ in FORMER} == {"LlmRequest", "LlmCall", "LlmResponse", "LlmUsage"}


def some(schema: Schema, mark: bytes) -> tuple[dict[str, Any], bytes]:
    """An event of a schema with whatever it allows, and its value."""
    out = BytesIO()
    event: Any = generate_one(schema)
    schemaless_writer(out, schema, event)
    return event, SINGLE_OBJECT_MAGIC + mark + out.getvalue()


@pytest.mark.parametrize(("name", "mark"), FORMER, ids=[f"{name} {mark.hex()}" for name, mark in FORMER])
def test_what_a_former_version_wrote_is_read(name: str, mark: bytes) -> None:
    """Whatever such an event holds, a new codec reads it: plain fields as they were, and every field of now."""
    codec, now = Codec(), {field["name"] for field in SCHEMAS[name]["fields"]}
    for seed in range(20):
        random.seed(seed)
        event, value = some(ALL[mark], mark)
        found = codec.decode(name, value)
        assert found.keys() == now
        plain = {key: one for key, one in event.items() if not isinstance(one, dict | list)}
        assert {key: found[key] for key in plain} == plain
        assert codec.decode(name, codec.encode(name, found)) == found


def test_of_another_kind_it_is_not_read() -> None:
    """A former schema does not make one record another."""
    mark = next(mark for name, mark in FORMER if name == "LlmUsage")
    with pytest.raises(Undecodable, match="not a valid LlmRequest"):
        Codec().decode("LlmRequest", some(ALL[mark], mark)[1])
    with pytest.raises(Undecodable, match="No schema with fingerprint 0000000000000000"):
        Codec().decode("LlmRequest", SINGLE_OBJECT_MAGIC + bytes(8) + b"x")
