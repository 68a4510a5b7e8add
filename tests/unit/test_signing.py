"""Signatures of requests: the same in every way to make them, and what of a signed record is believed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from runpy import run_path
from typing import Any

import pytest

from core.replies import allowed, own_patterns
from core.trust import Caller, Signed, as_caller, mismatch, not_for, signed_of, untimely
from schemas.signing import KEY_ID, SIGNATURE, SIGNED_AT, signed_headers, signing_key
from tests.examples import NOON, request

SECURITY = (Path(__file__).parents[2] / "docs" / "security.md").read_text("utf-8")
KEY = "vk-0123456789abcdef.correct-horse-battery-staple"
AT = NOON // 1_000_000
#: Made with OpenSSL 3.0.19, by the recipe in docs/security.md.
KNOWN = {
    b"hello": "e5c1d60cef4569f578c62260b2bfd06415920879e126b23df37cd5f8a69f711d",
    b"": "e10a8e308423268eac391954dba14a5ba4f279ca0e718ee553c614b53e3a4e0e",
    b"\xc3\x01\x00\n\xff": "ab2750d2d8f69492d3a32f162490d0baca158f2e4f7c6895a98798a340ae884c",
}
CALLER = Caller("vk-0123456789abcdef", "acme", "ana", None, ("google/*", "openai/gpt-5"))


def recipe(language: str) -> str:
    """The recipe of the documentation in this language."""
    found = re.search(rf"```{language}\n(.*?)```", SECURITY, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.mark.parametrize("value", KNOWN, ids=repr)
def test_every_way_to_sign_gives_the_known_signature(value: bytes, tmp_path: Path) -> None:
    """Our function, the documentation's and openssl come to the same headers."""
    wanted = [
        (KEY_ID, b"vk-0123456789abcdef"),
        (SIGNED_AT, b"1795258680"),
        (SIGNATURE, KNOWN[value].encode()),
    ]
    assert signed_headers(KEY, value, AT) == wanted
    (tmp_path / "recipe.py").write_text(recipe("python"))
    assert run_path(str(tmp_path / "recipe.py"))["signed_headers"](KEY, value, AT) == wanted
    (tmp_path / "value").write_bytes(value)
    said = subprocess.run(
        ["sh", "-c", recipe("sh")], cwd=tmp_path, env={"PATH": "/usr/bin:/bin", "api_key": KEY, "at": str(AT)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert said.stdout.strip() == KNOWN[value]


def test_a_key_without_its_secret_signs_nothing() -> None:
    """The id alone is refused, before anything is sent."""
    with pytest.raises(ValueError, match="give it whole"):
        signed_headers("vk-0123456789abcdef", b"hello", AT)


def test_a_signature_holds_for_its_key_time_id_and_value_alone() -> None:
    """Whatever of them is another, the signature is no longer that of the record."""
    headers = dict(signed_headers(KEY, b"hello", AT))
    key = signing_key(KEY.partition(".")[2])

    def holds(by: bytes = key, value: bytes = b"hello", **changes: bytes) -> bool:
        told = {KEY_ID: headers[KEY_ID], SIGNED_AT: headers[SIGNED_AT], SIGNATURE: headers[SIGNATURE]}
        told |= {f"millstream-{name.replace('_', '-')}": bytes_ for name, bytes_ in changes.items()}
        signed = signed_of(list(told.items()))
        assert isinstance(signed, Signed)
        return signed.by(by, value)

    assert holds()
    assert not holds(by=signing_key("another"))
    assert not holds(value=b"hello ")
    assert not holds(key_id=b"vk-0123456789abcdee")
    assert not holds(signed_at=b"1795258681")
    # What leaves one line is not what stands in the next.
    assert not holds(value=b"0\nhello", signed_at=b"179525868")


@pytest.mark.parametrize(
    ("headers", "code", "words"),
    [
        ([], "caller_not_signed", "is not signed"),
        ([("traceparent", b"1")], "caller_not_signed", "is not signed"),
        ([(KEY_ID, b"vk-1"), (SIGNED_AT, b"1")], "caller_not_signed", f"{SIGNATURE} stands there 0 times"),
        ([(KEY_ID, b"vk-1"), (KEY_ID, b"vk-2")], "caller_not_signed", f"{KEY_ID} stands there 2 times"),
        ([(KEY_ID, b"vk\n1"), (SIGNED_AT, b"1"), (SIGNATURE, b"0" * 64)], "caller_bad_signature", KEY_ID),
        ([(KEY_ID, b"vk-1"), (SIGNED_AT, b"-1"), (SIGNATURE, b"0" * 64)], "caller_bad_signature", SIGNED_AT),
        ([(KEY_ID, b"vk-1"), (SIGNED_AT, b"1\n"), (SIGNATURE, b"0" * 64)], "caller_bad_signature", SIGNED_AT),
        ([(KEY_ID, b"vk-1"), (SIGNED_AT, b"1"), (SIGNATURE, b"F" * 64)], "caller_bad_signature", SIGNATURE),
        ([(KEY_ID, b"vk-1"), (SIGNED_AT, b"1"), (SIGNATURE, b"")], "caller_bad_signature", SIGNATURE),
    ],
)  # fmt: skip
def test_headers_that_cannot_be_a_signature_are_refused(headers: Any, code: str, words: str) -> None:
    """None, one too few, one twice and ones of another form each have a sentence that names the header."""
    found = signed_of(headers)
    assert not isinstance(found, Signed)
    assert found["code"] == code
    assert words in found["message"]


@pytest.mark.parametrize(("seconds", "in_time"), [(0, True), (300, True), (-300, True), (301, False), (-301, False)])
def test_a_signature_counts_for_five_minutes_either_way(seconds: int, in_time: bool) -> None:
    """The sentence says how far it is off."""
    signed = Signed(b"vk-1", str(AT).encode(), b"")
    problem = untimely(signed, (AT + seconds) * 1_000_000)
    assert (problem is None) == in_time
    if problem is not None:
        assert problem["code"] == "caller_signature_untimely"
        assert ("301 s ago" if seconds > 0 else "301 s from now") in problem["message"]


@pytest.mark.parametrize(
    ("claims", "named"),
    [
        ({}, None), ({"user": None}, None), ({"tenant": "default"}, None), ({"project": "search"}, None),
        ({"api_key_id": "vk-0123456789abcdef"}, None), ({"tenant": "globex"}, "tenant 'globex'"),
        ({"user": "bo"}, "user 'bo'"), ({"api_key_id": "vk-1"}, "api key id 'vk-1'"),
    ],
)  # fmt: skip
def test_a_request_claims_what_its_key_is_for(claims: dict[str, Any], named: str | None) -> None:
    """What it leaves out is the key's, what the key leaves open is its own, and another's is refused by its name."""
    asked = request(**claims)
    problem = mismatch(asked, CALLER)
    assert (problem is None) == (named is None)
    if problem is not None:
        assert problem["code"] == "caller_identity_mismatch"
        assert named in problem["message"]
    known = as_caller(asked, CALLER)
    assert (known["tenant"], known["user"], known["api_key_id"]) == ("acme", "ana", CALLER.api_key_id)
    assert known["project"] == claims.get("project")


def test_a_key_is_for_the_models_that_it_names() -> None:
    """A pattern lets in what fits, another model is refused by name, and a key without patterns is for all."""
    assert not_for(CALLER, "google/gemini-2.5-pro") is None
    assert not_for(CALLER, "openai/gpt-5") is None
    assert not_for(None, "openai/gpt-5-mini") is None
    assert not_for(Caller("vk-1", "acme"), "openai/gpt-5-mini") is None
    refused = not_for(CALLER, "openai/gpt-5-mini")
    assert refused is not None
    assert refused["code"] == "policy_model_not_allowed"
    assert "not for openai/gpt-5-mini; it is for google/*, openai/gpt-5" in refused["message"]


def test_a_tenant_names_reply_topics_of_its_own() -> None:
    """A tenant's name stands for itself in a pattern, whatever characters it has."""
    patterns = ["answers.{tenant}.*", "shared"]
    assert allowed("answers.acme.a", own_patterns(patterns, "acme"))
    assert not allowed("answers.globex.a", own_patterns(patterns, "acme"))
    assert not allowed("answers.globex.a", own_patterns(patterns, "*"))
    assert allowed("shared", own_patterns(patterns, "acme"))
