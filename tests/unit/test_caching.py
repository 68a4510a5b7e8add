"""Which requests are equal for the response cache."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.cache import key_of
from agents.planning import Plan
from core.reply import text_part
from schemas.events import LlmRequest, Message, Tool
from tests.examples import request

PLAN = Plan({"route": "r"}, cache_seconds=60)
TEXTS = st.text(st.sampled_from(' "\\\n\tab:,{}[]1é'), max_size=6)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=8,
)
OBJECTS = st.dictionaries(TEXTS, JSON, max_size=4)
#: Ways to write the same JSON with other blanks.
WRITERS: list[dict[str, Any]] = [
    {}, {"separators": (",", ":")}, {"separators": (" ,\n", "\t: ")}, {"indent": 0}, {"indent": 3}, {"indent": "\t"},
]  # fmt: skip


def asking(texts: list[str], maps: dict[str, str], tags: dict[str, str]) -> LlmRequest:
    """A request with JSON in text wherever it may have any, and with these maps."""
    made = request()
    schema, arguments, tool = texts
    called = {**text_part(""), "type": "tool_call", "text": None, "tool_arguments": arguments}
    return {
        **made,
        "parameters": {**made["parameters"], "response_format": schema},
        "tools": [Tool(name="t", description="d", parameters=tool)],
        "messages": [*made["messages"], Message(role="assistant", content=[called])],  # type: ignore[list-item]
        "provider_options": maps,
        "tags": tags,
    }


def key(asked: LlmRequest) -> bytes:
    found = key_of(asked, PLAN)
    assert found is not None
    return found


@given(st.lists(OBJECTS, min_size=3, max_size=3), OBJECTS, st.data())
def test_neither_blanks_nor_the_order_of_maps_nor_tags_count(values: list[Any], options: Any, data: st.DataObject) -> None:  # fmt: skip
    """However a client writes the same JSON, and in whatever order its maps stand, it is the same request."""

    def written(value: Any) -> str:
        return json.dumps(value, **data.draw(st.sampled_from(WRITERS)))

    def one() -> LlmRequest:
        names = data.draw(st.permutations(list(options)))
        tags = data.draw(st.dictionaries(TEXTS, TEXTS, max_size=2))
        return asking([written(value) for value in values], {name: written(options[name]) for name in names}, tags)

    assert key(one()) == key(one())


@given(st.lists(OBJECTS, min_size=4, max_size=4), st.integers(0, 3), OBJECTS)
def test_everything_else_counts(values: list[Any], place: int, other: Any) -> None:
    """Two requests that differ in what any of their JSON says are not equal, down to the blanks in its strings."""

    def asked(found: list[Any]) -> LlmRequest:
        *texts, options = [json.dumps(value) for value in found]
        return asking(texts, {"o": options}, {})

    changed = [other if n == place else value for n, value in enumerate(values)]
    same = json.dumps(values) == json.dumps(changed)
    assert (key(asked(values)) == key(asked(changed))) is same


def test_what_shapes_the_answer_counts() -> None:
    """The order in which a schema names its fields, in which a model then writes them; what is no JSON stays as it is."""
    texts = ['{"a":1,"b":2}', "{}", "{}"]
    base = key(asking(texts, {}, {}))
    assert base == key(asking(['{ "a": 1, "b": 2 }', "{}", "{}"], {}, {"tag": "1"}))
    assert base != key(asking(['{"b":2,"a":1}', "{}", "{}"], {}, {}))
    assert key(asking(["{}", "1 2", "{}"], {}, {})) != key(asking(["{}", "12", "{}"], {}, {}))
    assert key(request("a b")) != key(request("ab"))
    assert key(request(tenant="globex")) != key(request())


@pytest.mark.parametrize("changes", [{"cache": "bypass"}, {"stream": True}])
def test_what_goes_round_the_cache_has_no_key(changes: dict[str, Any]) -> None:
    """Neither has a request of a route without a cache."""
    assert key_of(request(**changes), PLAN) is None
    assert key_of(request(), Plan({"route": "r"})) is None


def test_a_shared_cache_knows_no_tenants() -> None:
    """Equal requests of two tenants are one, where the route says so; in another route they are another."""
    shared = Plan({"route": "r"}, cache_seconds=60, cache_shared=True)
    assert key_of(request(tenant="acme"), shared) == key_of(request(tenant="globex"), shared)
    assert key_of(request(), PLAN) != key_of(request(), Plan({"route": "s"}, cache_seconds=60))
