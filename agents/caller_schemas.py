"""JSON schemas that callers write, read with care: nothing is fetched for them, and no time without bound is spent on them."""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import ContextVar
from functools import lru_cache
from itertools import islice
from typing import Any, cast

import orjson
from jsonschema import Draft202012Validator, SchemaError, ValidationError, validators
from jsonschema.exceptions import best_match
from jsonschema.protocols import Validator
from referencing import Registry, Resource, Specification
from referencing.exceptions import Unresolvable
from referencing.jsonschema import specification_with

from config.json_strings import FORMATS, begin, follow_pattern, matcher

#: Keywords that may be applied while one answer is looked at, some tenths of a second; a few of them in a chain can double the
#: work each. Of a keyword with a long list, such as `enum`, every `ENTRIES` entries count as one more.
MOST_KEYWORDS, ENTRIES = 100_000, 50
LONGEST_PROBLEM = 300
#: Characters of a schema up to which it is remembered.
LONGEST_KEPT = 20_000
_left: ContextVar[list[int]] = ContextVar("keywords left")


class Unusable(ValueError):
    """A schema that no answer can be checked against; its text says why."""


def first_problem(validator: Validator, answer: Any) -> str | None:
    """What is wrong first with an answer; None where it follows the schema."""
    _left.set([MOST_KEYWORDS])
    begin()
    try:
        found = best_match(islice(validator.iter_errors(answer), 20))
    except Exception as why:
        # Whatever a schema leads the library to, the answer is paid for and its usage is kept.
        return f"it cannot be checked ({type(why).__name__})."
    if found is None:
        return None
    message = found.message if len(found.message) <= LONGEST_PROBLEM else f"{found.message[:LONGEST_PROBLEM]}…"
    return f"at {found.json_path}, {message}."


def validator_of(text: str, followed: bool) -> Validator:
    """The validator of a schema; `Unusable` where it is none. `followed` says whether answers are checked against it."""
    return (_made if len(text) > LONGEST_KEPT else _kept)(text, followed)


def _made(text: str, followed: bool) -> Validator:
    try:
        schema = orjson.loads(text)
        default: Any = None if "$schema" in schema else Draft202012Validator
        dialect = validators.validator_for(schema, default)
        if dialect is None:
            raise Unusable(f"the dialect {schema.get('$schema')!r} is not known; leave $schema out.")
        dialect.check_schema(schema)
        without = {key: value for key, value in schema.items() if key != "$schema"}
        if followed:
            _check_closed(without, specification_with(str(dialect.META_SCHEMA["$schema"])))
        return _careful(dialect)(without, registry=Registry(), format_checker=FORMATS)
    except orjson.JSONDecodeError as why:
        raise Unusable(f"it is not JSON ({why}).") from None
    except SchemaError as why:
        raise Unusable(f"at {why.json_path}, {why.message[:LONGEST_PROBLEM]}.") from None
    except (RecursionError, AttributeError, TypeError):
        raise Unusable("it is nested too deeply, or has values where schemas belong.") from None


#: A schema takes milliseconds to check, and the same ones come with every request.
_kept = lru_cache(maxsize=1_024)(_made)


def _check_closed(schema: dict[str, Any], dialect: Specification[Any]) -> None:
    """`Unusable` for a schema that points outside itself, or has what answers cannot be checked against safely."""
    resource = dialect.create_resource(schema)
    resolver = Registry().with_resource(resource.id() or "", resource).resolver(base_uri=resource.id() or "")
    parts = list(_subschemas(resource))
    known = {id(part) for part in parts}
    for part in parts:
        for keyword in ("patternProperties", "$schema"):
            if keyword in part:
                raise Unusable(f"{keyword} is not offered inside it; leave it out.")
        if isinstance(pattern := part.get("pattern"), str):
            try:
                matcher(pattern)
            except ValueError as why:
                raise Unusable(f"its pattern {pattern[:100]!r} {why}.") from None
        for reference in (part.get("$ref"), part.get("$dynamicRef")):
            if reference is None:
                continue
            if not str(reference).startswith("#"):
                raise Unusable(
                    f"it refers to {str(reference)[:100]!r}; nothing is fetched, so write that schema into it."
                )
            try:
                found = resolver.lookup(reference).contents
            except Unresolvable:
                raise Unusable(f"it refers to {str(reference)[:100]!r}, which it does not have.") from None
            if not isinstance(found, bool) and id(found) not in known:
                raise Unusable(f"it refers to {str(reference)[:100]!r}, which is no schema; write that under $defs.")


def _subschemas(resource: Resource[Any]) -> Iterator[dict[str, Any]]:
    if isinstance(resource.contents, dict):
        yield resource.contents
    for inner in resource.subresources():
        yield from _subschemas(inner)


@lru_cache
def _careful(dialect: type[Validator]) -> type[Validator]:
    """The dialect with a bound on the keywords that are applied, and on what patterns take."""
    known = {**dialect.VALIDATORS, "pattern": follow_pattern, "uniqueItems": _unique}
    counted = {name: _counting(keyword) for name, keyword in known.items()}
    return cast(type[Validator], validators.extend(dialect, counted))  # type: ignore[no-untyped-call]


def _counting(keyword: Any) -> Any:
    def follow(validator: Validator, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        left = _left.get()
        left[0] -= 1 + (len(value) // ENTRIES if isinstance(value, list | dict) else 0)
        if left[0] < 0:
            raise RecursionError
        yield from keyword(validator, value, instance, schema) or ()

    return follow


def _unique(validator: Validator, wanted: Any, instance: Any, _: Any) -> Iterator[ValidationError]:
    """The keyword `uniqueItems` in linear time; the library's is quadratic."""
    if wanted and validator.is_type(instance, "array") and len(set(map(_hashable, instance))) < len(instance):
        yield ValidationError("it has items that are equal")


def _hashable(value: Any) -> Any:
    """What is equal for JSON values that are: 1 and 1.0 are, 1 and true are not."""
    if isinstance(value, dict):
        return "object", frozenset((name, _hashable(each)) for name, each in value.items())
    if isinstance(value, list):
        return "array", tuple(map(_hashable, value))
    return type(value) is bool, value
