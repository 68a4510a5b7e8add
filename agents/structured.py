"""Structured output: whether a schema can be followed, whether an answer follows it, and the request that repairs one.

A schema is the caller's own text, so it is read with care: nothing is fetched for it, and no time without bound is spent on it.
"""

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
from core.errors import ProviderError, error
from core.reply import Reply, text_part
from schemas.events import Error, LlmCall, LlmRequest, Message

#: Keywords that may be applied while one answer is looked at, some tenths of a second; a few of them in a chain can double the
#: work each. Of a keyword with a long list, such as `enum`, every `ENTRIES` entries count as one more.
MOST_KEYWORDS, ENTRIES = 100_000, 50
#: Objects and lists that the schemas of a request may have together: each takes a fifth of a millisecond to check.
MOST_PLACES = 2_000
LONGEST_PROBLEM = 300
#: Characters of a schema up to which it is remembered.
LONGEST_KEPT = 20_000
#: The most tokens that `repair_request` adds beside the answer itself.
REPAIR_TOKENS = 2_048
REPAIR = (
    "Your last answer does not follow the JSON schema that it has to follow: {problem}\n"
    "Answer again, with JSON that follows the schema and nothing else."
)
_left: ContextVar[list[int]] = ContextVar("keywords left")


class _Unusable(ValueError):
    """A schema that no answer can be checked against; its text says why."""


def schema_problem(request: LlmRequest) -> Error | None:
    """What is wrong with the schemas of the answer and of the tools, as the error its caller gets; None where nothing is."""
    schemas = [(f"tools[{n}].parameters", tool["parameters"], False) for n, tool in enumerate(request["tools"])]
    if (text := request["parameters"]["response_format"]) is not None:
        schemas.append(("parameters.response_format", text, True))
    left = MOST_PLACES
    for name, text, followed in schemas:
        left -= _places(text)
        if left < 0:
            said = f"the request's schemas have more than {MOST_PLACES:,} objects and lists together; make them shorter"
            return error("caller_invalid_request", f"Field {name} is one schema too many: {said}.")
        try:
            _validator(text, followed)
        except _Unusable as why:
            return error("caller_invalid_request", f"Field {name} is no JSON schema that can be used: {why}")
    return None


def answer_problem(request: LlmRequest, reply: Reply) -> str | None:
    """In which way an answer does not follow the request's schema; None where it does, or none is given.

    An answer that asks for tools is none yet.
    """
    schema = request["parameters"]["response_format"]
    if schema is None or any(part["type"] == "tool_call" for part in reply.output):
        return None
    try:
        answer = orjson.loads(answer_text(reply))
    except orjson.JSONDecodeError as why:
        cut = " because it was cut off; allow more max_output_tokens" if reply.finish_reason == "length" else ""
        return f"it is not JSON ({why}){cut}."
    return _first_problem(_validator(schema, True), answer)


def checked(call: LlmCall, reply: Reply) -> Reply:
    """The reply, where it follows the request's schema; else `ProviderError`, which keeps what the provider reported."""
    problem = answer_problem(call["request"], reply)
    if problem is None:
        return reply
    message = f"The answer of {call['provider']} does not follow the request's response_format: {problem}"
    raise ProviderError(error("provider_schema_mismatch", message), "maybe", reply)


def repair_request(call: LlmCall, answer: str, problem: str) -> LlmCall:
    """The same call with the wrong answer in its conversation, and a sentence on what is wrong with it.

    It reads at most as many tokens more as the answer may have, and `REPAIR_TOKENS`: `core.pricing.upper_bound` takes both
    as `reread_tokens`.
    """
    wrong = [Message(role="assistant", content=[text_part(answer)])] if answer.strip() else []
    told = Message(role="user", content=[text_part(REPAIR.format(problem=problem[: LONGEST_PROBLEM + 100]))])
    messages = [*call["request"]["messages"], *wrong, told]
    return cast(LlmCall, {**call, "request": {**call["request"], "messages": messages}})


def answer_text(reply: Reply) -> str:
    """The texts of an answer as one."""
    return "".join(part["text"] or "" for part in reply.output if part["type"] == "text")


def _first_problem(validator: Validator, answer: Any) -> str | None:
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


def _validator(text: str, followed: bool) -> Validator:
    """The validator of a schema; `_Unusable` where it is none. `followed` says whether answers are checked against it."""
    return (_made if len(text) > LONGEST_KEPT else _kept)(text, followed)


def _made(text: str, followed: bool) -> Validator:
    try:
        schema = orjson.loads(text)
        default: Any = None if "$schema" in schema else Draft202012Validator
        dialect = validators.validator_for(schema, default)
        if dialect is None:
            raise _Unusable(f"the dialect {schema.get('$schema')!r} is not known; leave $schema out.")
        dialect.check_schema(schema)
        without = {key: value for key, value in schema.items() if key != "$schema"}
        if followed:
            _check_closed(without, specification_with(str(dialect.META_SCHEMA["$schema"])))
        return _careful(dialect)(without, registry=Registry(), format_checker=FORMATS)
    except orjson.JSONDecodeError as why:
        raise _Unusable(f"it is not JSON ({why}).") from None
    except SchemaError as why:
        raise _Unusable(f"at {why.json_path}, {why.message[:LONGEST_PROBLEM]}.") from None
    except (RecursionError, AttributeError, TypeError):
        raise _Unusable("it is nested too deeply, or has values where schemas belong.") from None


#: A schema takes milliseconds to check, and the same ones come with every request.
_kept = lru_cache(maxsize=1_024)(_made)


def _places(text: str) -> int:
    """How many objects and lists are in a JSON text; more where its texts have brackets."""
    return text.count("{") + text.count("[")


def _check_closed(schema: dict[str, Any], dialect: Specification[Any]) -> None:
    """`_Unusable` for a schema that points outside itself, or has what answers cannot be checked against safely."""
    resource = dialect.create_resource(schema)
    resolver = Registry().with_resource(resource.id() or "", resource).resolver(base_uri=resource.id() or "")
    parts = list(_subschemas(resource))
    known = {id(part) for part in parts}
    for part in parts:
        for keyword in ("patternProperties", "$schema"):
            if keyword in part:
                raise _Unusable(f"{keyword} is not offered inside it; leave it out.")
        if isinstance(pattern := part.get("pattern"), str):
            try:
                matcher(pattern)
            except ValueError as why:
                raise _Unusable(f"its pattern {pattern[:100]!r} {why}.") from None
        for reference in (part.get("$ref"), part.get("$dynamicRef")):
            if reference is None:
                continue
            if not str(reference).startswith("#"):
                raise _Unusable(
                    f"it refers to {str(reference)[:100]!r}; nothing is fetched, so write that schema into it."
                )
            try:
                found = resolver.lookup(reference).contents
            except Unresolvable:
                raise _Unusable(f"it refers to {str(reference)[:100]!r}, which it does not have.") from None
            if not isinstance(found, bool) and id(found) not in known:
                raise _Unusable(f"it refers to {str(reference)[:100]!r}, which is no schema; write that under $defs.")


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
