"""Templates of prompts: they read their inputs and do nothing else, within bounds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples

from config.json_schema import Schema
from config.templates import MOST_ROUNDS, Template, TemplateError
from tests.unit.tasks import TEXTS

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "text": {"type": "string"},
        "order": {"type": "object", "properties": {"items": {"type": "array", "items": {"$ref": "#/$defs/line"}}}},
        "free": {},
        "note": {"type": ["string", "null"], "default": "none"},
        "lines": {"type": "array", "items": {"type": "string"}},
    },
    "$defs": {"line": {"type": "object", "properties": {"name": {"type": "string"}, "count": {"type": "integer"}}}},
}
HOSTILE_TEMPLATES = {
    "class": "{{ text.__class__ }}",
    "class by brackets": "{{ text['__class__'].__mro__ }}",
    "a call": "{{ free.clear() }}",
    "a global": "{{ range(9) }}",
    "no such global": "{{ lipsum }}",
    "self": "{{ self }}",
    "huge range": "{% for n in range(10**9) %}{% endfor %}",
    "power": "{{ 10 ** 1000000000 }}",
    "repetition": "{{ 'x' * 1000000000 }}",
    "format": "{{ '%999999999d' % 1 }}",
    "format filter": "{{ '%s'|format(text) }}",
    "attr filter": "{{ text|attr('__class__') }}",
    "map filter": "{{ lines|map('upper')|list }}",
    "center filter": "{{ text|center(1000000000) }}",
    "replace filter": "{{ text|replace('a', text) }}",
    "join by an input": "{{ lines|join(text) }}",
    "arguments out of an input": "{{ lines|join(*lines) }}",
    "named arguments out of an input": "{{ lines|join(**order) }}",
    "a huge argument": "{{ text|truncate(1000000000) }}",
    "include": "{% include '/etc/passwd' %}",
    "import": "{% import 'os' as os %}{{ os }}",
    "extends": "{% extends 'base' %}",
    "macro": "{% macro m() %}{% endmacro %}",
    "set": "{% set a = text ~ text %}{{ a }}",
    "block": "{% block a %}{% endblock %}",
    "deep loops": "{% for a in lines %}{% for b in lines %}{% for c in lines %}{% for d in lines %}x"
    + "{% endfor %}" * 4,
    "recursive loop": "{% for a in lines recursive %}{{ loop(lines) }}{% endfor %}",
    "the context's own": "{{ loop }}",
    "unknown within": "{{ order.nothing }}",
    "unknown within a list": "{% for line in order['items'] %}{{ line.price }}{% endfor %}",
    "unknown by number": "{{ order['items'][0].price }}",
    "very long": "x" * 50_001,
    "very deep": "{{ " + "(" * 5_000 + "text" + ")" * 5_000 + " }}",
}


@pytest.mark.parametrize("case", HOSTILE_TEMPLATES)
def test_a_template_that_does_more_than_read_its_inputs_is_refused_when_loaded(case: str) -> None:
    """Calls, globals, arithmetic, other templates, hidden attributes and unknown inputs never come to be rendered."""
    with pytest.raises(TemplateError):
        Template(HOSTILE_TEMPLATES[case], SCHEMA)


def shown(source: str, **values: Any) -> str:
    """A template's text for these inputs."""
    return Template(source, SCHEMA).render(Schema(SCHEMA).completed(values), 10_000)


def test_a_template_reads_inputs_and_nothing_of_python() -> None:
    """A dot reads a key even where a dict has a method of that name; defaults stand in; loops, filters and tests work."""
    order = {"items": [{"name": "roll", "count": 2}, {"name": "loaf"}]}
    assert shown("{% for l in order.items %}{{ loop.index }} {{ l.name }}{{ ';' if not loop.last }}{% endfor %}" .replace(
        "{{ ';' if not loop.last }}", "{% if not loop.last %};{% endif %}"), order=order) == "1 roll;2 loaf"  # fmt: skip
    assert shown("{{ note }} {{ lines is none }}") == "none True"
    assert shown("{% for line in lines %}x{% else %}no lines{% endfor %}") == "no lines"
    assert shown("{{ text|upper }} {{ lines|join(', ') }} {{ free|tojson }}", text="a", lines=["b", "c"], free={"d": "<&é"}) == (
        'A b, c {"d":"<&é"}')  # fmt: skip
    assert shown("{% for key, value in free|items %}{{ key }}={{ value }}{% endfor %}", free={"a": 1}) == "a=1"


HOSTILE_INPUTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "many rounds": ("{% for a in lines %}{% for b in lines %}{% if false %}x{% endif %}{% endfor %}{% endfor %}",
                    {"lines": ["x"] * 500}, f"more than {MOST_ROUNDS}"),
    "long text": ("{{ text }}{{ text }}", {"text": "é" * 2_600}, "10000 bytes"),
    "what is missing": ("{{ free.a.b }}", {"free": {}}, "UndefinedError"),
    "an attribute": ("{{ free.clear }}", {"free": {}}, "UndefinedError"),
    "an attribute of text": ("{{ free.upper }}", {"free": "x"}, "UndefinedError"),
    "another type": ("{% if free > 1 %}x{% endif %}", {"free": "x"}, "TypeError"),
    "a loop over text": ("{% for a in free %}x{% endfor %}", {"free": "text"}, "no list"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE_INPUTS)
def test_a_rendering_that_runs_out_of_bounds_ends_with_a_sentence(case: str) -> None:
    """Rounds, bytes and readings are bounded; the error is one sentence, not a crash."""
    source, values, words = HOSTILE_INPUTS[case]
    with pytest.raises(TemplateError) as problem:
        shown(source, **values)
    assert words in str(problem.value)
    assert len(str(problem.value)) < 300


@examples(deadline=None)
@given(TEXTS)
def test_an_input_is_never_template_code(text: str) -> None:
    """Whatever a text says, it stands in the prompt character by character, and the prompt around it is the same."""
    found = Template("<a>{{ text }}</a>", SCHEMA).render({"text": text}, 1_000_000)
    assert found == f"<a>{text}</a>"
