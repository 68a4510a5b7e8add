"""Reading by columns: what it gives is what reading one value after another gives, or it gives nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.avro import SCHEMAS
from schemas.codec import Codec, Undecodable, without_logical_types
from schemas.columnar import Columns, Table
from schemas.jsonform import from_json
from sinks.rows import FACTS

CODEC = Codec()
NAME = "LlmUsage"
EXAMPLES = Path(__file__).parent.parent.parent / "schemas" / "examples"
#: Nine bytes hold it.
LARGEST = 2**62 - 1


def example(name: str, **changes: Any) -> bytes:
    """The first example of a record type, encoded."""
    path = min((EXAMPLES / name).glob("*.json"))
    return CODEC.encode(name, {**from_json(name, json.loads(path.read_text())), **changes})


def of_schema(schema: Any, named: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values of an Avro schema without logical types."""
    schema = named.get(schema, schema) if isinstance(schema, str) else schema
    match schema:
        case "long":
            return st.integers(-LARGEST - 1, LARGEST) | st.integers(-100, 100)
        case "int":
            return st.integers(-(2**31), 2**31 - 1)
        case "boolean":
            return st.booleans()
        case "string":
            return st.text(max_size=200)
        case ["null", branch]:
            return st.none() | of_schema(branch, named)
        case {"type": "map"}:
            return st.dictionaries(st.text(max_size=10), st.text(max_size=10), max_size=4)
        case {"type": "enum"}:
            named[f"millstream.v1.{schema['name']}"] = schema
            return st.sampled_from(schema["symbols"])
        case {"type": "record"}:
            named[f"millstream.v1.{schema['name']}"] = schema
            return st.fixed_dictionaries({f["name"]: of_schema(f["type"], named) for f in schema["fields"]})
    raise TypeError(schema)


EVENTS = of_schema(without_logical_types(SCHEMAS[NAME]), {})


def one_by_one(values: list[bytes]) -> Columns | None:
    """The same columns by the reader of single values, None when it refuses one."""
    columns: Columns = {}

    def enter(event: dict[str, Any], path: str) -> None:
        for name, value in event.items():
            if isinstance(value, dict) and name != "tags":
                enter(value, f"{path}{name}.")
            else:
                columns.setdefault(path + name, []).append(value)

    try:
        for value in values:
            enter(CODEC.decode(NAME, value), "")
    except Undecodable:
        return None
    return columns


@given(st.lists(EVENTS, min_size=1, max_size=8))
def test_columns_are_what_the_events_are(events: list[dict[str, Any]]) -> None:
    """Any batch of events gives the same values either way."""
    values = [CODEC.encode(NAME, event) for event in events]
    expected = one_by_one(values)
    assert expected is not None
    assert CODEC.decode_columns(NAME, values) == expected


@pytest.mark.parametrize("number", [LARGEST + 1, 2**63 - 1, -LARGEST - 2, -(2**63)])
def test_larger_numbers_are_left_to_the_other_reader(number: int) -> None:
    """What needs a tenth byte is not read by columns."""
    assert CODEC.decode_columns(NAME, [example(NAME, queue_us=number)]) is None
    assert CODEC.decode(NAME, example(NAME, queue_us=number))["queue_us"] == number


@given(st.lists(EVENTS, min_size=1, max_size=4), st.data())
def test_a_changed_byte_is_read_alike_or_not_at_all(events: list[dict[str, Any]], data: st.DataObject) -> None:
    """Bytes changed, cut off or added anywhere never give other values than the reader of single values gives."""
    values = [CODEC.encode(NAME, event) for event in events]
    which = data.draw(st.integers(0, len(values) - 1))
    at = data.draw(st.integers(0, len(values[which])))
    cut = data.draw(st.integers(0, 3))
    values[which] = values[which][:at] + data.draw(st.binary(max_size=3)) + values[which][at + cut :]
    found = CODEC.decode_columns(NAME, values)
    assert found is None or found == one_by_one(values)


def test_another_schema_or_no_value_is_left_to_the_other_reader() -> None:
    """A tombstone, another record type and bytes that are no event give nothing; no values give no columns."""
    good = example(NAME)
    for other in (None, b"", b"{}", good[:10], example("LlmAlert")):
        assert CODEC.decode_columns(NAME, [good, other]) is None
        assert CODEC.decode_columns(NAME, [other, good]) is None
    assert CODEC.decode_columns(NAME, []) == {}


@pytest.mark.parametrize("fact", [fact for fact in FACTS if fact.by_columns], ids=lambda fact: fact.table)
def test_a_fact_read_by_columns_can_be(fact: Any) -> None:
    """Its schema has no field that only a reader of single values knows."""
    assert Table(without_logical_types(SCHEMAS[fact.record])).columns([]) is not None
