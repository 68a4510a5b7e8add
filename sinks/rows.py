"""Turn events into table columns, as the Avro schemas say.

Nested records become one column a field (`tokens.input_uncached` is `tokens_input_uncached`), a null string becomes an
empty one, everything else keeps its null. Message bodies stay out of the facts: `DERIVED` says what is kept of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from core.topics import ALERTS, DEAD_LETTERS, REQUESTS, RESPONSES, USAGE, Topic
from schemas.avro import SCHEMAS, Schema
from schemas.codec import Event

Values = list[Any]


@dataclass(frozen=True, slots=True)
class Fact:
    """A fact table: the topic it is filled from and the event time that places its rows.

    `read_by_stage` says that a stage reads the topic too, and reports what cannot be decoded: one dead letter is enough.
    `by_columns` says that its fields can be read column by column (see `schemas.columnar`), and none is kept as something else.
    """

    table: str
    topic: Topic
    time: str
    read_by_stage: bool
    by_columns: bool = False

    @property
    def record(self) -> str:
        """The Avro record type of the topic."""
        return self.topic.record


FACTS = (
    Fact("requests", REQUESTS, "created_at", read_by_stage=True),
    Fact("responses", RESPONSES, "created_at", read_by_stage=False),
    Fact("usage", USAGE, "created_at", read_by_stage=True, by_columns=True),
    Fact("alerts", ALERTS, "raised_at", read_by_stage=False),
    Fact("dead_letters", DEAD_LETTERS, "failed_at", read_by_stage=False),
)


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a fact table; `field` is the Avro field it is made of, written with dots, None for a position."""

    name: str
    type: str
    field: str | None


#: Where a row came from: the first columns of every fact table.
POSITION = (
    Column("kafka_topic", "LowCardinality(String)", None),
    Column("kafka_partition", "Int32", None),
    Column("kafka_offset", "Int64", None),
    Column("ce_id", "String", None),
)

#: Strings with few different values.
LOW_CARDINALITY = frozenset(
    {
        *("tenant", "project", "task", "plan", "provider", "model", "response_model", "price_source"),
        *("finish_reason", "error_code", "code", "kind", "reason", "stage", "topic", "reply_topic", "reasoning_effort"),
        *("route", "prompt_version", "credential_owner", "tool_choice", "downgraded_from"),
    }
)


def _text_length(parts: Sequence[Event]) -> int:
    return sum(len(part["text"] or "") + len(part["tool_arguments"] or "") for part in parts)


def _input_chars(messages: Sequence[Event]) -> int:
    return sum(_text_length(message["content"]) for message in messages)


def _size(value: Sized | None) -> int | None:
    return None if value is None else len(value)


def _all(field: str) -> Callable[[Sequence[Event]], list[Any]]:
    return lambda records: [record[field] for record in records]


def _key_text(key: bytes | None) -> str:
    return "" if key is None else key.decode("utf-8", "replace")


Derive = Callable[[Any], Any]

#: What is kept of a field that does not become a column as it stands: column name, type and function of the value.
DERIVED: dict[str, tuple[tuple[str, str, Derive], ...]] = {
    "LlmRequest.messages": (("message_count", "Int32", len), ("input_chars", "Int64", _input_chars)),
    "LlmRequest.tools": (("tool_count", "Int32", len),),
    "LlmRequest.input": (("task_input_chars", "Nullable(Int64)", _size),),
    "LlmResponse.output": (("output_chars", "Int64", _text_length),),
    "LlmResponse.decisions": (
        ("decisions_model", "Array(LowCardinality(String))", _all("model")),
        ("decisions_kept", "Array(Bool)", _all("kept")),
        ("decisions_reason", "Array(String)", _all("reason")),
    ),
    "LlmResponse.near_limits": (
        ("near_limits_account", "Array(String)", _all("account")),
        ("near_limits_limit", "Array(LowCardinality(String))", _all("limit")),
        ("near_limits_percent", "Array(Int64)", _all("percent")),
    ),
    "DeadLetter.key": (("key", "String", _key_text),),
    "DeadLetter.value": (("value_bytes", "Nullable(Int64)", _size),),
    "DeadLetter.headers": (("header_count", "Int32", len),),
}

_SCALARS = {"int": "Int32", "long": "Int64", "boolean": "Bool", "double": "Float64", "float": "Float32"}
_LOGICAL = {"timestamp-micros": "DateTime64(6, 'UTC')", "date": "Date"}


def _unwrapped(schema: Any) -> tuple[Any, bool]:
    """The type without its null, and whether null is allowed."""
    if isinstance(schema, list):
        (branch,) = (b for b in schema if b != "null")
        return branch, "null" in schema
    return schema, False


def _column_type(schema: Any, name: str, nullable: bool) -> str:
    """The ClickHouse type of a field; TypeError when the field needs a line in `DERIVED`."""
    kind = schema["type"] if isinstance(schema, dict) else schema
    logical = _LOGICAL.get(schema.get("logicalType", "")) if isinstance(schema, dict) else None
    if kind == "enum":
        return "LowCardinality(String)"
    if kind == "string":
        return "LowCardinality(String)" if name in LOW_CARDINALITY else "String"
    if kind == "map" and schema["values"] == "string":
        return "Map(LowCardinality(String), String)"
    if kind == "array" and schema["items"] == "string":
        return "Array(String)"
    if logical or kind in _SCALARS:
        plain = logical or _SCALARS[kind]
        return f"Nullable({plain})" if nullable else plain
    raise TypeError(f"Field {name} of type {kind} has no column type: say what to keep of it in sinks.rows.DERIVED.")


class _Leaf:
    """A field that gives columns; `write` appends their values."""

    def __init__(self, path: str, columns: tuple[Column, ...], derive: tuple[Derive, ...], empty: str | None) -> None:
        self.path = path
        self.columns = columns
        self.derive = derive
        self.empty = empty

    def write(self, values: Values, out: list[Values]) -> None:
        if self.derive:
            out.extend([function(value) for value in values] for function in self.derive)
        elif self.empty is not None:
            out.append([value or "" for value in values])
        else:
            out.append(values)


class _Record:
    """A record whose fields each give columns; a null record gives its columns nulls."""

    def __init__(self, schema: Schema, owner: str, prefix: str, path: str, nullable: bool, named: dict[str, Schema]):
        self.fields: list[tuple[Callable[[Event], Any], _Leaf | _Record]] = []
        self.nulls = {field["name"]: None for field in schema["fields"]} if nullable else None
        for field in schema["fields"]:
            name = field["name"]
            self.fields.append((itemgetter(name), _node(field, owner, prefix, path + name, nullable, named)))

    @property
    def leaves(self) -> Iterator[_Leaf]:
        for _, node in self.fields:
            yield from node.leaves if isinstance(node, _Record) else (node,)

    def write(self, events: Values, out: list[Values]) -> None:
        if self.nulls is not None:
            events = [self.nulls if event is None else event for event in events]
        for get, node in self.fields:
            node.write(list(map(get, events)), out)


def _node(
    field: Schema, owner: str, prefix: str, path: str, nullable: bool, named: dict[str, Schema]
) -> _Leaf | _Record:
    name = field["name"]
    schema, may_be_null = _unwrapped(field["type"])
    schema = named.get(schema, schema) if isinstance(schema, str) else schema
    nullable = nullable or may_be_null
    if derived := DERIVED.get(f"{owner}.{path}"):
        columns = tuple(Column(prefix + column, kind, path) for column, kind, _ in derived)
        return _Leaf(path, columns, tuple(function for *_, function in derived), None)
    if isinstance(schema, dict) and schema["type"] == "record":
        return _Record(schema, owner, f"{prefix}{name}_", f"{path}.", nullable, named)
    kind = _column_type(schema, name, nullable)
    text = nullable and "String" in kind and not kind.startswith(("Map", "Array"))
    return _Leaf(path, (Column(prefix + name, kind, path),), (), "" if text else None)


def _named_types(schema: Any, found: dict[str, Schema]) -> dict[str, Schema]:
    """Every named type defined inside `schema`, by its full name."""
    if isinstance(schema, list):
        for branch in schema:
            _named_types(branch, found)
    elif isinstance(schema, dict):
        if schema.get("type") in ("record", "enum"):
            found[f"{schema.get('namespace', 'millstream.v1')}.{schema['name']}"] = schema
        for key in ("type", "items", "values", "fields"):
            _named_types(schema.get(key), found)
    return found


_TREES = {
    fact.record: _Record(SCHEMAS[fact.record], fact.record, "", "", False, _named_types(SCHEMAS[fact.record], {}))
    for fact in FACTS
}


def columns_of(record: str) -> tuple[Column, ...]:
    """The columns of the fact table that holds events of this record type, in the order of `values_of`."""
    return POSITION + tuple(column for leaf in _TREES[record].leaves for column in leaf.columns)


def values_of(
    record: str, events: Sequence[Event], topic: str, partition: int, offsets: Values, ce_ids: Values
) -> list[Values]:
    """The events as one list of values a column; `offsets` and `ce_ids` stand beside the events."""
    out = _positions(topic, partition, offsets, ce_ids)
    _TREES[record].write(list(events), out)
    return out


def values_of_columns(
    record: str, columns: Mapping[str, Values], topic: str, partition: int, offsets: Values, ce_ids: Values
) -> list[Values]:
    """Like `values_of`, of events that are given as a list of values for each field."""
    out = _positions(topic, partition, offsets, ce_ids)
    for leaf in _TREES[record].leaves:
        leaf.write(columns[leaf.path], out)
    return out


def _positions(topic: str, partition: int, offsets: Values, ce_ids: Values) -> list[Values]:
    return [[topic] * len(offsets), [partition] * len(offsets), offsets, ce_ids]
