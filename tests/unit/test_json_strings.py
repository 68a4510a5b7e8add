"""Patterns and formats of JSON schemas: what they mean, which cannot be used, and that none keeps a worker busy."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.json_schema import Schema
from config.json_strings import FORMATS, FORMS, LARGEST, matcher
from local.simulator.samples import FORMATS as SAMPLES


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("a", "bab", True), ("^a$", "a", True), ("^a$", "a\n", False), (r"^\d{4}-\d{2}$", "2026-11", True), (r"^\d$", "٣", False),
        (r"^\w+$", "é", False), (r"^[\w.-]+$", "a.b-c", True), (r"^[^\d]$", "5", False), (r"\bab\b", "x ab y", True),
        (r"^\D\W\S$", "a-b", True), (r"^\\w$", "\\w", True), (r"^\/a\-b$", "/a-b", True), (r"^\u0041\x41$", "AA", True),
        (r"^\p{Lu}\p{L}+$", "Ärger", True), (r"^(?<y>[0-9]{2})(?:x|y)?$", "12y", True), ("^[[]$", "[", False),
    ],
)  # fmt: skip
def test_a_pattern_means_what_it_means_in_ecmascript(pattern: str, text: str, found: bool) -> None:
    """It is searched for anywhere, `$` is the very end, and classes hold ASCII alone; what is read otherwise is refused."""
    try:
        assert matcher(pattern).found(text) is found
    except ValueError:
        assert pattern == "^[[]$"


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("(?=a)b", "looks around"), ("(?<!a)b", "looks around"), ("(?i)a", "sets flags"), ("(?x)#[\n(a{1000}){1000}#]", "sets flags"),
        (r"(a)\1", "backreferences"), ("[a", "unclosed"), ("a{1000}{1000}", "1,000,000 steps"), ("(?:(?:a{0,50}){0,50}){0,20}b", "steps"),
        (r"\p{L}{500}", "steps"), ("a" * (LARGEST + 1), "steps"), (r"[\]{]{9}(a{1,99}b){99}", "steps"),
    ],
)  # fmt: skip
def test_a_pattern_that_cannot_be_used_says_why(pattern: str, words: str) -> None:
    """What the engine does not know, and what would take it too long, is told in words."""
    with pytest.raises(ValueError, match=words):
        matcher(pattern)


PARTS = st.recursive(
    st.sampled_from(["a", "b", ".", "[ab]", r"\w", r"\.", "[^a]"]),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: f"({''.join(parts)})"),
        st.tuples(inner, st.integers(0, 3), st.integers(0, 3)).map(lambda each: f"(?:{each[0]}){{{each[1]},{each[1] + each[2]}}}"),
        inner.map(lambda part: f"(?:{part})*"),
    ),
    max_leaves=5,
)  # fmt: skip


@given(PARTS, st.text("ab.c", max_size=8))
def test_plain_patterns_are_found_as_pythons_are(pattern: str, text: str) -> None:
    """Where both engines agree on what a pattern is, they agree on whether it is there; the size is that of the pattern or more."""
    known = matcher(pattern)
    assert known.found(text) is (re.search(pattern, text) is not None)
    assert known.size >= len(re.findall(r"[ab.](?![^\[]*\])", pattern)) // 2


@pytest.mark.parametrize("name", FORMS)
def test_every_format_takes_what_the_simulator_says_and_no_other_text(name: str) -> None:
    """A string in the format passes, anything that is no string does too, and words, line ends and nothing at all do not."""
    assert SAMPLES.keys() == FORMS.keys()
    assert FORMATS.conforms(SAMPLES[name], name) and FORMATS.conforms(5, name)
    for wrong in ("", "lorem ipsum", f"{SAMPLES[name]}\n", f" {SAMPLES[name]}"):
        assert not FORMATS.conforms(wrong, name), wrong


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("date", "2026-02-30"), ("date", "20260101"), ("date-time", "2026-01-01T00:00:00"), ("date-time", "2026-13-01T00:00:00Z"),
        ("time", "24:00:00Z"), ("duration", "P"), ("duration", "P1DT"), ("duration", "1D"), ("email", "a@b@c"), ("ipv4", "1.2.3"),
        ("ipv4", "256.1.1.1"), ("ipv6", "fe80::1%eth0"), ("hostname", "a..b"), ("hostname", "-a.b"), ("hostname", ".".join(["a" * 60] * 5)),
        ("uri", "example.com"), ("uuid", "00000000000040008000000000000000"),
    ],
)  # fmt: skip
def test_what_only_looks_like_a_format_is_told_from_it(name: str, wrong: str) -> None:
    """Days that no month has, times without a zone, addresses out of range."""
    assert not FORMATS.conforms(wrong, name)


def test_a_tasks_input_is_held_against_patterns_and_formats_in_bounded_time() -> None:
    """A task's schema is held to the same bounds as a caller's, when it is read and when a value is."""
    schema = Schema(
        {"type": "object", "properties": {"a": {"type": "string", "pattern": "^(a+)+$"}, "b": {"format": "date"}}}
    )
    assert schema.problem({"a": "aa", "b": "2026-11-29"}, "input") is None
    assert "pattern" in (schema.problem({"a": "a" * 60 + "!"}, "input") or "")
    assert "format" in (schema.problem({"b": "tomorrow"}, "input") or "")
    assert "too long" in (schema.problem({"a": "a" * 5_000_000}, "input") or "")
    with pytest.raises(ValueError, match="looks around"):
        Schema({"type": "object", "properties": {"a": {"pattern": "(?=a)"}}})
