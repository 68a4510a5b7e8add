"""Prompt templates: Jinja in its sandbox, cut down to reading inputs, so that a template can do nothing but make text.

A template may read its inputs, with `if`, `for` and the filters and tests below. It can call nothing, calculate nothing, keep
nothing and load nothing; no attribute of a Python object is in its reach, only the keys and items of JSON values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson
from jinja2 import StrictUndefined, TemplateSyntaxError, Undefined, nodes, pass_context
from jinja2 import Template as Compiled
from jinja2.filters import FILTERS as JINJA_FILTERS
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.tests import TESTS as JINJA_TESTS

from config.json_schema import property_of, resolved

LONGEST_SOURCE = 50_000
#: Rounds of all loops of one rendering together.
MOST_ROUNDS = 10_000
DEEPEST_LOOP = 3
#: Longest text and largest number that a filter's argument may be.
LARGEST_ARGUMENT = 10_000

FILTERS = ("default", "first", "items", "join", "last", "length", "lower", "tojson", "trim", "truncate", "upper")
TESTS = ("defined", "eq", "ge", "gt", "in", "le", "lt", "mapping", "ne", "none", "number", "sequence", "string")
LOOP_FIELDS = ("first", "index", "index0", "last", "length")

_MAY_USE = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.For, nodes.Name, nodes.Const, nodes.Getattr, nodes.Getitem,
    nodes.Filter, nodes.Test, nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.CondExpr, nodes.Concat,
    nodes.List, nodes.Tuple, nodes.Keyword,
)  # fmt: skip
#: No template can write this name.
_ROUNDS = "rounds left"
_COUNTED = "counted rounds"


class TemplateError(ValueError):
    """A template that may not be used, or that cannot be rendered with these inputs; one sentence says why."""


class Template:
    """A template that was checked against the schema of its inputs; `TemplateError` names the line and what is wrong."""

    def __init__(self, source: str, schema: Mapping[str, Any]) -> None:
        if len(source) > LONGEST_SOURCE:
            raise TemplateError(f"It has {len(source)} characters; a template may have {LONGEST_SOURCE}.")
        try:
            tree = _ENVIRONMENT.parse(source)
            _check(tree, 0)
            _Readings(schema).check(tree, dict(schema.get("properties", {})))
            for loop in list(tree.find_all(nodes.For)):
                loop.iter = nodes.Filter(loop.iter, _COUNTED, [], [], None, None, lineno=loop.lineno)
            tree.set_environment(_ENVIRONMENT)
            code = _ENVIRONMENT.compile(tree)
        except TemplateSyntaxError as problem:
            raise TemplateError(f"Line {problem.lineno}: {problem.message}") from None
        except RecursionError:
            raise TemplateError("It is nested too deep to be read; make it flatter.") from None
        self._compiled = Compiled.from_code(_ENVIRONMENT, code, {})

    def render(self, values: Mapping[str, Any], most_bytes: int) -> str:
        """The text for these inputs, without white space around it; `TemplateError` when it cannot be made within bounds."""
        parts: list[str] = []
        size = 0
        try:
            for part in self._compiled.generate({**values, _ROUNDS: [MOST_ROUNDS]}):
                size += len(part.encode())
                if size > most_bytes:
                    raise TemplateError(f"The text grows beyond {most_bytes} bytes; send less.")
                parts.append(part)
        except TemplateError:
            raise
        except RecursionError:
            raise TemplateError("An input is nested too deep; make it flatter.") from None
        except Exception as problem:
            raise TemplateError(f"{type(problem).__name__}: {str(problem)[:200]}") from None
        return "".join(parts).strip()


class _Environment(ImmutableSandboxedEnvironment):
    """Values are JSON: a dot reads a key, as brackets do, and never an attribute (so `order.items` is the input's own)."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, LoopContext) and attribute in LOOP_FIELDS:
            return getattr(obj, attribute)
        return self.getitem(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(obj, Undefined):
            return obj
        if isinstance(obj, dict | list):
            try:
                return obj[argument]
            except (LookupError, TypeError):
                pass
        return self.undefined(obj=obj, name=argument)


@pass_context
def _counted(context: Context, value: Any) -> Iterator[Any]:
    """The items of a list or the keys of an object, none of null; the rounds of all loops are bounded together."""
    left: list[int] = context[_ROUNDS]
    if isinstance(value, str | int | float):
        raise TemplateError(f"A loop goes over {str(value)[:40]!r}, which is no list.")
    for item in () if value is None else value:
        left[0] -= 1
        if left[0] < 0:
            raise TemplateError(f"The loops have more than {MOST_ROUNDS} rounds together; send shorter lists.")
        yield item


def _tojson(value: Any) -> str:
    """The value as JSON without what is null; Jinja's own filter escapes for HTML, and a prompt wants texts as they are."""
    return orjson.dumps(_known(value)).decode()


def _known(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _known(inner) for name, inner in value.items() if inner is not None}
    return [_known(inner) for inner in value] if isinstance(value, list) else value


def _environment() -> _Environment:
    made = _Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, cache_size=0)
    made.globals = {}
    made.filters = {name: JINJA_FILTERS[name] for name in FILTERS}
    made.filters |= {"tojson": _tojson, _COUNTED: _counted}
    made.tests = {name: JINJA_TESTS[name] for name in TESTS}
    return made


_ENVIRONMENT = _environment()


def _check(node: nodes.Node, loops: int) -> None:
    """Raise for whatever is not among the few things that a template may use."""
    if not isinstance(node, _MAY_USE):
        raise TemplateError(
            f"Line {node.lineno}: it uses {type(node).__name__!r}, and may use only inputs, if, for, "
            f"and the filters {', '.join(FILTERS)}."
        )
    if isinstance(node, nodes.For):
        loops += 1
        if loops > DEEPEST_LOOP or node.recursive:
            raise TemplateError(f"Line {node.lineno}: loops may be nested {DEEPEST_LOOP} deep, and not recursive.")
    if isinstance(node, nodes.Getattr) and node.attr.startswith("_"):
        raise TemplateError(
            f"Line {node.lineno}: it reads {node.attr!r}; names with an underscore in front are closed."
        )
    if isinstance(node, nodes.Filter):
        _check_arguments(node)
    for child in node.iter_child_nodes():
        _check(child, loops)


def _check_arguments(filtered: nodes.Filter) -> None:
    """Raise for an argument that is no small constant: one out of the inputs could ask for a text of any length."""
    given = [*filtered.args, *(keyword.value for keyword in filtered.kwargs), filtered.dyn_args, filtered.dyn_kwargs]
    for argument in given:
        if argument is None:
            continue
        if not isinstance(argument, nodes.Const):
            raise TemplateError(f"Line {filtered.lineno}: filter {filtered.name} takes only constants as arguments.")
        size = len(argument.value) if isinstance(argument.value, str) else argument.value
        if isinstance(size, int | float) and not 0 <= size <= LARGEST_ARGUMENT:
            raise TemplateError(
                f"Line {filtered.lineno}: an argument of filter {filtered.name} is beyond 0 to {LARGEST_ARGUMENT}."
            )


class _Readings:
    """Follows every reading of an input through the schema, as far as the schema tells; raises for what it does not have."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root

    def check(self, node: nodes.Node, scope: dict[str, Any]) -> None:
        """Check a node whose names stand for the schemas in `scope`."""
        if isinstance(node, nodes.For):
            self.check(node.iter, scope)
            inner = {**scope, **self._bound(node, scope), "loop": None}
            for child in (*node.body, *([node.test] if node.test else [])):
                self.check(child, inner)
            for child in node.else_:
                self.check(child, scope)
            return
        if isinstance(node, nodes.Name | nodes.Getattr | nodes.Getitem):
            self._shape(node, scope)
        for child in node.iter_child_nodes():
            self.check(child, scope)

    def _bound(self, loop: nodes.For, scope: dict[str, Any]) -> dict[str, Any]:
        if isinstance(loop.target, nodes.Name):
            shape = self._shape(loop.iter, scope)
            return {loop.target.name: resolved(shape.get("items"), self._root) if shape else None}
        return {name.name: None for name in loop.target.find_all(nodes.Name)}

    def _shape(self, node: nodes.Node, scope: dict[str, Any]) -> dict[str, Any] | None:
        """The schema of what a node reads; None where nothing is said of it."""
        if isinstance(node, nodes.Name):
            if node.name not in scope:
                raise _unknown(node, node.name, scope)
            return resolved(scope[node.name], self._root)
        if isinstance(node, nodes.Getattr):
            name: Any = node.attr
        elif isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
            name = node.arg.value
        else:
            return None
        within = self._shape(node.node, scope)
        if within is None:
            return None
        if isinstance(name, int):
            return resolved(within.get("items"), self._root)
        if "properties" in within and name not in within["properties"]:
            raise _unknown(node, name, within["properties"])
        return property_of(within, name, self._root)


def _unknown(node: nodes.Node, name: str, known: Mapping[str, Any]) -> TemplateError:
    return TemplateError(
        f"Line {node.lineno}: it reads {name!r}, which the input schema does not have; it has {', '.join(sorted(known))}."
    )
