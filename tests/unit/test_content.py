"""The content of a request, by which one that is sent again is known: what it says, not how its schema stands."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import pytest

from agents.admit import CONTENT
from schemas.avro import SCHEMAS
from schemas.codec import Codec
from schemas.content import Content
from schemas.events import LlmRequest
from tests.examples import request, written

CODEC = Codec()
NEW_FIELDS = [
    {"name": "added", "type": ["null", "string"], "default": None},
    {"name": "added", "type": {"type": "array", "items": "string"}, "default": []},
    {"name": "added", "type": "boolean", "default": False},
]


def part(kind: str, **fields: Any) -> dict[str, Any]:
    empty = dict.fromkeys(("text", "media_type", "url", "data", "tool_call_id", "tool_name", "tool_arguments"))
    return {**empty, "type": kind, **fields}


def asked(**changes: Any) -> LlmRequest:
    """A request that uses every record of the schema."""
    content = [part("text", text="Why?"), part("image", media_type="image/png", data=b"\x00\xff")]
    parameters = {**request()["parameters"], "temperature": 0.5}
    tools = [{"name": "f", "description": None, "parameters": "{}"}]
    whole: dict[str, Any] = {
        "request_id": "3f2a5f6e-8e5c-4b8a-9d0e-0c1f6f1b2a3c", "messages": [{"role": "user", "content": content}],
        "parameters": parameters, "tools": tools, "tags": {"a": "1", "b": "2"},
    }  # fmt: skip
    return request(**whole | changes)


def records_in(kind: Any) -> Iterator[dict[str, Any]]:
    """Every record that a type is made of, itself included."""
    for one in kind if isinstance(kind, list) else [kind]:
        if isinstance(one, dict):
            if one["type"] == "record":
                yield one
            for inner in (*(f["type"] for f in one.get("fields", ())), one.get("items"), one.get("values")):
                yield from records_in(inner)


RECORDS = [record["name"] for record in records_in(SCHEMAS["LlmRequest"])]


def test_a_request_has_records_within_records() -> None:
    """What follows is asked of all of them."""
    assert RECORDS == ["LlmRequest", "Message", "ContentPart", "Tool", "Parameters"]


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize("field", NEW_FIELDS, ids=["nullable", "array", "boolean"])
@pytest.mark.parametrize("changes", [{}, {"parameters": request()["parameters"]}], ids=["all", "defaults"])
def test_an_optional_field_more_changes_nothing_for_requests_without_it(
    name: str, field: dict[str, Any], changes: dict[str, Any]
) -> None:
    """In whichever record a release adds it, a request of before has the content that it had; one that uses it has another."""
    schema = copy.deepcopy(SCHEMAS["LlmRequest"])
    (record,) = (each for each in records_in(schema) if each["name"] == name)
    record["fields"].append(field)
    before = asked(**changes)

    def added(value: Any, **more: Any) -> LlmRequest:
        event: Any = copy.deepcopy(before)
        places = {
            "LlmRequest": [event], "Message": event["messages"], "ContentPart": event["messages"][0]["content"],
            "Tool": event["tools"], "Parameters": [event["parameters"]],
        }  # fmt: skip
        for place in places[name]:
            place["added"] = value
        return event  # type: ignore[no-any-return]

    later = Content(schema, without=("created_at",))
    assert later.of(added(field["default"])) == CONTENT.of(before)
    assert later.of(added(True if field["type"] == "boolean" else ["x"])) != CONTENT.of(before)


def test_what_an_older_producer_wrote_has_the_content_that_it_had() -> None:
    """A request written before its schema had a field is read with the default, and says the same."""
    older = copy.deepcopy(SCHEMAS["LlmRequest"])
    older["fields"] = [f for f in older["fields"] if f["name"] not in ("on_limit", "prompt_version")]
    value = written(older, asked())
    now = Codec(older=(older,)).decode("LlmRequest", value)
    assert CONTENT.of(now) == CONTENT.of(asked())
    assert Content(older, without=("created_at",)).of(asked()) == CONTENT.of(now)


def test_the_time_and_the_order_of_a_map_do_not_count() -> None:
    """Sent again later, with its tags in another order, a request is the same."""
    assert CONTENT.of(asked(created_at=7, tags={"b": "2", "a": "1"})) == CONTENT.of(asked())


@pytest.mark.parametrize(
    "changes",
    [
        {"request_id": "3f2a5f6e-8e5c-4b8a-9d0e-0c1f6f1b2a3d"}, {"tenant": "default"}, {"user": None}, {"user": ""},
        {"tags": {}}, {"tags": {"a": "2", "b": "1"}}, {"messages": []}, {"tools": []}, {"stream": True},
        {"priority": "batch"}, {"deadline": 0}, {"max_attempts": 1}, {"model": None, "task": "openai/gpt-5-mini"},
        {"messages": [{"role": "user", "content": [part("text", text="Why?")]}]},
        {"messages": [{"role": "user", "content": [part("text", text="Why?"), part("image", media_type="image/png", data=b"\x00\xfe")]}]},
        {"messages": [{"role": "user", "content": [part("text", text="Why?"), part("image", media_type="image/png", data=b"")]}]},
        {"parameters": {**request()["parameters"], "temperature": 0.25}},
        {"parameters": {**request()["parameters"], "temperature": 0.0}},
        {"parameters": {**request()["parameters"], "temperature": math.nan}},
        {"parameters": request()["parameters"]},
        {"provider_options": {"openai": "{}"}},
    ],
)  # fmt: skip
def test_requests_that_say_something_else_differ(changes: dict[str, Any]) -> None:
    """Also where a value is null, empty or zero instead, or the same word stands elsewhere."""
    assert CONTENT.of(asked(**changes)) != CONTENT.of(asked())


def test_as_it_is_read_so_it_was_written() -> None:
    """Encoding and decoding changes no content."""
    assert CONTENT.of(CODEC.decode("LlmRequest", CODEC.encode("LlmRequest", asked()))) == CONTENT.of(asked())
