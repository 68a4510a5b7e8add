"""What a JSON schema may ask of a string, `pattern` and `format`, checked in bounded time.

Callers write patterns, and a regular expression can run for ever. They are matched by Rust's engine (https://docs.rs/regex, through
pydantic), which never goes back: its time is the text's length times the size of the pattern with its repetitions written out,
and both are bounded here. It knows neither look-around nor back-references.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from jsonschema import FormatChecker, ValidationError
from jsonschema.protocols import Validator
from pydantic_core import SchemaError, SchemaValidator, core_schema
from pydantic_core import ValidationError as NoMatch

LARGEST = 2_000
#: What a class of Unicode counts as; it takes kilobytes to compile.
UNICODE_CLASS = 20
#: Steps, size times characters, that may be spent on the patterns of one value: some hundredths of a second.
MOST_STEPS = 5_000_000

#: ECMAScript's classes hold ASCII alone (https://tc39.es/ecma262/#sec-characterclassescape), the engine's Unicode too.
ASCII = {"d": "[0-9]", "D": "[^0-9]", "w": "[0-9A-Za-z_]", "W": "[^0-9A-Za-z_]", "b": r"(?-u:\b)"}
TOKEN = re.compile(
    r"\\[pP](?:\{[^}]*\}|.)|\\.|\[\^?(?:\\.|[^\]\\])*\]|\{(?P<least>\d+),?(?P<most>\d*)\}|\((?P<asked>\?(?!:|P?<[A-Za-z_]))?|.",
    re.DOTALL,
)
_left: ContextVar[list[int]] = ContextVar("steps left")


@dataclass(frozen=True, slots=True)
class Matcher:
    """A pattern that can be searched for; `size` is how many steps it has with its repetitions written out, or more."""

    size: int
    found: Callable[[str], bool]


@lru_cache(maxsize=1_024)
def matcher(pattern: str) -> Matcher:
    """The pattern, ready for use; ValueError says why it cannot be used."""
    size = _size(pattern) if len(pattern) <= LARGEST else len(pattern)
    if size > LARGEST:
        raise ValueError(
            f"has {size:,} steps with its repetitions written out, and {LARGEST:,} are allowed; make it shorter"
        )
    translated = re.sub(r"\\(.)", lambda escape: ASCII.get(escape[1], escape[0]), pattern, flags=re.DOTALL)
    try:
        engine = SchemaValidator(core_schema.str_schema(pattern=translated, regex_engine="rust-regex"))
    except SchemaError as why:
        raise ValueError(f"is none that can be used ({str(why).splitlines()[-1].strip()[:100]})") from None

    def found(text: str) -> bool:
        try:
            engine.validate_python(text)
        except NoMatch:
            return False
        return True

    return Matcher(size, found)


def _size(pattern: str) -> int:
    """Counts more where it reads otherwise than the engine, as in a class within a class, and never less."""
    #: Of each group that is open: its size so far, and that of its last part, which a repetition takes as often.
    open_groups = [[0, 0]]
    for token in TOKEN.finditer(pattern):
        text, (total, last) = token[0], open_groups[-1]
        if text.startswith("("):
            if token["asked"]:
                raise ValueError("looks around, or sets flags, which is not offered; leave that out")
            open_groups.append([0, 0])
        elif text == ")" and len(open_groups) > 1:
            open_groups.pop()
            open_groups[-1][:] = open_groups[-1][0] + total + 1, total + 1
        elif token["least"] is not None:
            times = max(1, int(token["least"]), int(token["most"] or 0))
            open_groups[-1][:] = total + last * (times - 1), last * times
        else:
            step = 1 + UNICODE_CLASS * len(re.findall(r"\\[pP]", text))
            open_groups[-1][:] = total + step, step if text not in "*+?" else last + step
    return sum(total for total, _ in open_groups)


def begin() -> None:
    """Before a value is held against its schema: what the patterns may take of it is counted from here."""
    _left.set([MOST_STEPS])


def follow_pattern(_: Validator, pattern: str, instance: Any, __: Any) -> Iterator[ValidationError]:
    """The keyword `pattern`; RecursionError once too much has been spent on the value."""
    if not isinstance(instance, str):
        return
    known, left = matcher(pattern), _left.get()
    left[0] -= known.size * len(instance)
    if left[0] < 0:
        raise RecursionError
    if not known.found(instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


_DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_TIME = r"([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)(\.[0-9]+)?([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
_LABEL = r"[0-9A-Za-z]([0-9A-Za-z-]{0,61}[0-9A-Za-z])?"
#: The form of a string in each format (https://json-schema.org/draft/2020-12/json-schema-validation#section-7.3).
FORMS = {
    "date": _DATE,
    "date-time": f"{_DATE}[Tt]{_TIME}",
    "time": _TIME,
    "duration": r"P(?=.)([0-9]+W|([0-9]+Y)?([0-9]+M)?([0-9]+D)?(T(?=.)([0-9]+H)?([0-9]+M)?([0-9]+S)?)?)",
    "email": r"[^@\s]+@[^@\s]+",
    "hostname": rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*",
    "uri": r"[A-Za-z][0-9A-Za-z+.-]*:[^\s<>\"{}|\\^`]*",
    "uuid": r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}",
    "ipv4": r"[0-9.]+",
    "ipv6": r"[0-9A-Fa-f:.]+",
}
#: What a form cannot say; raises ValueError.
_READ: dict[str, Callable[[str], object]] = {
    "date": date.fromisoformat, "date-time": lambda text: date.fromisoformat(text[:10]),
    "ipv4": IPv4Address, "ipv6": IPv6Address,
}  # fmt: skip


def _check(form: str, read: Callable[[str], object] | None) -> Callable[[object], bool]:
    def check(value: object) -> bool:
        if not isinstance(value, str):
            return True
        right = re.fullmatch(form, value) is not None
        if right and read is not None:
            read(value)
        return right

    return check


#: Checks the formats above; any other is a word for the reader alone, as the standard allows.
FORMATS = FormatChecker(formats=())
for _name, _form in FORMS.items():
    FORMATS.checks(_name, raises=ValueError)(_check(_form, _READ.get(_name)))
