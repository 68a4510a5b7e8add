"""Images, audio, files, tools and schemas in a request: what is well formed, what is not, and what a model must be able to do."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.addresses import url_problem
from core.admission import problem_of
from core.estimate import needs as needs_of
from core.features import FEATURES, unsupported_by
from core.media import BEGINNINGS, MEDIA_TYPES
from core.reply import text_part
from schemas.events import ContentPart, Message
from tests.examples import request
from tests.media import FILES, TOOL_TURNS, URL, WEATHER, medium, part, tool_call, tool_result, turn

HELLO = turn("user", text_part("Hello."))


def problem(**changes: Any) -> str | None:
    """What is wrong with a request, as its caller reads it."""
    found = problem_of(request(**changes), 100, 1_000)
    assert found is None or found["code"] == "caller_invalid_request"
    return found and found["message"]


def with_part(made: ContentPart, role: str = "user") -> dict[str, Any]:
    return {"messages": [turn(role, made)]}


@pytest.mark.parametrize("media_type", FILES)
def test_media_by_bytes_and_by_url_are_well_formed(media_type: str) -> None:
    """A file of every type is taken as it is and by its URL."""
    assert problem(**with_part(medium(media_type))) is None
    assert problem(**with_part(medium(media_type, url=URL))) is None


@pytest.mark.parametrize("media_type", FILES)
@pytest.mark.parametrize("other", FILES)
def test_bytes_must_be_what_the_media_type_says(media_type: str, other: str) -> None:
    """Bytes of one type under the name of another are refused, and the answer says what they are."""
    kind = medium(media_type)["type"]
    said = problem(**with_part(part(kind, media_type=media_type, data=FILES[other])))
    assert (said is None) == (media_type == other)
    assert said is None or (media_type in said and other in said)


@given(st.binary(max_size=40))
def test_no_bytes_begin_as_two_types(data: bytes) -> None:
    """The beginnings that tell the types apart exclude one another."""
    assert sum(begins.match(data) is not None for begins in BEGINNINGS.values()) <= 1


def _wav_at(rate: int) -> bytes:
    made = bytearray(FILES["audio/wav"])
    made[24:32] = rate.to_bytes(4, "little") + (2 * rate).to_bytes(4, "little")
    return bytes(made)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (part("image"), ["content[0]", "without data and url"]),
        (part("image", media_type="image/png", data=FILES["image/png"], url=URL), ["both data and url"]),
        (part("image", data=FILES["image/png"]), ["media_type", "None", "image/png"]),
        (part("image", media_type="image/png", data=b""), ["data", "0 bytes", "no type"]),
        (part("image", media_type="image/tiff", url=URL), ["media_type", "image/tiff"]),
        (part("audio", media_type="image/png", data=FILES["image/png"]), ["media_type", "audio/wav"]),
        (part("file", media_type="text/plain", data=b"hello"), ["media_type", "text/plain", "application/pdf"]),
        (part("audio", media_type="audio/wav", data=_wav_at(1)), ["data", "WAV", "1000 bytes a second"]),
        (part("audio", media_type="audio/wav", data=b"RIFF\0\0\0\0WAVE"), ["data", "WAV", "fmt"]),
        (part("image", url="ftp://example.com/a.png"), ["url", "'ftp'", "http"]),
        (part("tool_result", tool_call_id="c1", text="x"), ["type", "tool_result", "user"]),
    ],
)  # fmt: skip
def test_a_malformed_part_is_refused_by_field_and_value(made: ContentPart, words: list[str]) -> None:
    """The sentence names the field, what it has, and what it must have."""
    said = problem(**with_part(made))
    assert said is not None
    assert all(word in said for word in words), said


PRIVATE = [
    "http://localhost/a", "http://LOCALHOST./a", "http://api.localhost/a", "http://127.0.0.1/a", "http://127.1/a",
    "http://0x7f000001/a", "http://2130706433/a", "http://0177.0.0.1/a", "http://10.1.2.3/a", "http://192.168.0.1:8080/a",
    "http://172.16.0.1/a", "http://169.254.169.254/latest/meta-data", "http://100.64.0.1/a", "http://0.0.0.0/a",
    "http://224.0.0.1/a", "http://[::1]/a", "http://[fe80::1]/a", "http://[fc00::1]/a", "http://[::ffff:10.0.0.1]/a",
    "http://[64:ff9b:1::7f00:1]/a", "http://[fec0::1]/a", "http://[5f00::1]/a", "http://[::ffff:7f00:1]/a", "http://[64:ff9b::7f00:1]/a", "http://[2002:7f00:1::]/a", "http://[fe80::1%25eth0]/a",
    "http://printer/a", "http://nas.local/a", "http://metadata.google.internal/a", "http://%31%32%37.0.0.1/a",
]  # fmt: skip


@pytest.mark.parametrize("url", PRIVATE)
def test_a_private_address_is_refused_by_name(url: str) -> None:
    """However it is spelled, an address of a private network is not handed to a provider, and the answer says which it was."""
    said = problem(**with_part(part("image", url=url)))
    assert said is not None
    assert "private" in said
    assert "/a" not in said


@pytest.mark.parametrize(
    "url",
    [
        "https://user:secret@example.com/a", "https://example.com\\@10.0.0.1/secret", "https://exa mple.com/secret",
        "https://example.com/\nsecret", "https://example.com/secret" + "x" * 8_000, "https://[::1/secret", "file:///secret",
        "//example.com/secret", "data:image/png;base64,secret", "https://exämple.com/secret", "https://example.com:x/secret",
    ],
)  # fmt: skip
def test_a_url_that_is_none_is_refused_without_being_repeated(url: str) -> None:
    """Credentials, odd characters and other schemes are refused; nothing of the path or the password is in the answer."""
    said = problem(**with_part(part("image", url=url)))
    assert said is not None
    assert "secret" not in said


@pytest.mark.parametrize(
    "url", ["https://example.com/a.png?sig=x", "http://8.8.8.8/a", "https://xn--exmple-cua.com/a", "http://[2606:4700::1111]/a"]
)  # fmt: skip
def test_public_urls_are_handed_on(url: str) -> None:
    """Names and addresses that the world can reach are well formed."""
    assert url_problem(url) is None


@given(st.ip_addresses())
def test_only_addresses_of_the_public_internet_are_handed_on(address: Any) -> None:
    """No literal that Python's tables call private, loopback, link-local, reserved or multicast passes."""
    host = f"[{address}]" if address.version == 6 else str(address)
    if url_problem(f"http://{host}/") is None:
        assert address.is_global
        assert not address.is_multicast


def tools(**changes: Any) -> dict[str, Any]:
    return {"tools": [{**WEATHER, **changes}]}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (tools(name="what is it"), ["tools[0].name", "'what is it'", "letters"]),
        (tools(name="x" * 65), ["tools[0].name", "64"]), (tools(name="auto"), ["tools[0].name", "'auto'"]),
        (tools(name="9lives"), ["tools[0].name", "'9lives'"]),
        (tools(parameters="{"), ["tools[0].parameters", "'{'", "JSON schema"]),
        (tools(parameters="[]"), ["tools[0].parameters"]), (tools(parameters='{"type":"string"}'), ["parameters", "object"]),
        (tools(parameters="[" * 100_000), ["tools[0].parameters"]),
        ({"tools": [WEATHER, WEATHER]}, ["tools[1].name", "'weather'", "no other tool"]),
        ({"tools": [{**WEATHER, "name": f"t{n}"} for n in range(129)]}, ["tools", "129", "128"]),
        (tools() | {"tool_choice": "wether"}, ["tool_choice", "'wether'", "required"]),
        ({"tool_choice": "required"}, ["tool_choice", "'required'"]),
        ({"messages": [HELLO, turn("assistant", tool_call("")), turn("tool", tool_result(""))]}, ["tool_call_id", "''"]),
        ({"messages": [HELLO, turn("assistant", tool_call(name="a b"))]}, ["tool_name", "'a b'"]),
        ({"messages": [HELLO, turn("assistant", tool_call(arguments="[1]"))]}, ["tool_arguments", "[1]"]),
        ({"messages": [HELLO, turn("assistant", tool_call(), tool_call())]}, ["content[1].tool_call_id", "once"]),
        ({"messages": [HELLO, turn("assistant", tool_call())]}, ["messages[1].content[0]", "'c1'", "answered"]),
        ({"messages": [HELLO, turn("assistant", tool_call()), HELLO]}, ["messages[1].content[0]", "'c1'", "answered"]),
        ({"messages": [HELLO, turn("tool", tool_result())]}, ["messages[1].content[0].tool_call_id", "'c1'"]),
        ({"messages": [*TOOL_TURNS, turn("tool", tool_result("c2"))]}, ["messages[4]", "'c2'", "once"]),
        ({"messages": [HELLO, turn("assistant", tool_call()), turn("tool", part("tool_result", tool_call_id="c1"))]},
         ["messages[2].content[0].text", "result"]),
        ({"messages": [turn("assistant", medium("image/png"))]}, ["type", "image", "assistant"]),
        ({"messages": [turn("system", medium("image/png"))]}, ["type", "image", "system"]),
        ({"parameters": {**request()["parameters"], "response_format": "{"}}, ["response_format", "'{'"]),
        ({"parameters": {**request()["parameters"], "response_format": "true"}}, ["response_format", "object"]),
    ],
)  # fmt: skip
def test_malformed_tools_and_turns_are_refused_by_field_and_value(changes: dict[str, Any], words: list[str]) -> None:
    """The sentence names the field, what it has, and what it must have."""
    said = problem(**changes)
    assert said is not None
    assert all(word in said for word in words), said


def test_tools_and_their_calls_are_well_formed() -> None:
    """Definitions, every kind of choice, two calls with their results, and what follows them pass."""
    for choice in (None, "auto", "none", "required", "weather"):
        assert problem(messages=[*TOOL_TURNS, HELLO], tools=[WEATHER], tool_choice=choice) is None


@pytest.mark.parametrize(
    ("changes", "needs"),
    [
        ({}, set()), (with_part(medium("image/png")), {"image"}), (with_part(medium("audio/wav")), {"audio"}),
        (with_part(medium("application/pdf")), {"file"}), ({"tools": [WEATHER]}, {"tools"}),
        ({"messages": TOOL_TURNS}, {"tools"}), ({"stream": True}, {"streaming"}),
        ({"parameters": {**request()["parameters"], "response_format": "{}", "reasoning_effort": "low"}},
         {"structured_output", "reasoning"}),
    ],
)  # fmt: skip
def test_what_a_request_needs_follows_from_what_it_holds(changes: dict[str, Any], needs: set[str]) -> None:
    """Text always, and each further capability exactly where the request uses it."""
    assert needs_of(request(**changes)) == {"text", *needs}


BIG = part("image", media_type="image/png", data=FILES["image/png"] + bytes(4_000_000))
NOT_TAKEN: list[tuple[str, str, dict[str, Any], list[str]]] = [
    ("openai", "gpt-5-mini", with_part(medium("audio/wav", url=URL)), ["audio by URL", "data"]),
    ("openai", "gpt-5-mini", with_part(medium("application/pdf", url=URL)), ["file by URL"]),
    ("openai-compatible", "llama", with_part(medium("application/pdf", url=URL)), ["file by URL"]),
    ("anthropic", "claude-sonnet-4-5", with_part(medium("audio/wav")), ["audio"]),
    ("anthropic", "claude-sonnet-4-5", with_part(BIG), ["image", "4,000,0", "3,750,000"]),
    ("anthropic", "claude-sonnet-4-5", {"parameters": {**request()["parameters"], "temperature": 1.5}}, ["temperature of 1.5"]),
    ("google", "gemini-2.5-flash", with_part(medium("image/gif")), ["image/gif", "image/webp"]),
    ("google", "gemini-2.5-flash",
     {"tools": [WEATHER], "parameters": {**request()["parameters"], "response_format": "{}"}}, ["response_format", "tools"]),
    ("echo", "echo", with_part(medium("image/png")), ["image"]), ("echo", "echo", {"tools": [WEATHER]}, ["tool"]),
    ("echo", "echo", {"messages": TOOL_TURNS}, ["tool_call"]),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "model", "changes", "words"), NOT_TAKEN)
def test_what_a_provider_does_not_take_is_refused_by_its_name(
    kind: str, model: str, changes: dict[str, Any], words: list[str]
) -> None:
    """The error names the feature and the provider, whatever the provider is called here."""
    found = unsupported_by(request(**changes), "our-own", kind, model)
    assert found is not None
    assert found["code"] == "caller_unsupported_feature"
    assert all(word in found["message"] for word in ["our-own", *words]), found["message"]


def test_every_provider_takes_text_and_knows_only_known_types() -> None:
    """A plain request is refused by nobody, and the tables of features and of types agree."""
    known = {each for types in MEDIA_TYPES.values() for each in types}
    for kind, features in FEATURES.items():
        assert unsupported_by(request(), kind, kind, "some-model") is None
        assert set(features.most_bytes) <= known
        assert features.urls <= set(MEDIA_TYPES)


def test_a_message_of_an_unknown_role_is_refused() -> None:
    """A role that nobody plays is named."""
    said = problem(messages=[Message(role="wizard", content=[text_part("x")])])
    assert said is not None
    assert "wizard" in said
