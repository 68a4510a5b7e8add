"""Images, audio, files, tools and their results in each provider's own terms."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.providers import anthropic as anthropic_api
from agents.providers import google as google_api
from agents.providers import openai as openai_api
from agents.providers import openai_compatible as compatible_api
from agents.providers.echo import reply_to
from agents.providers.schemas import described
from core.admission import problem_of
from core.errors import ProviderError
from core.features import unsupported_by
from core.reply import text_part
from local.simulator.anthropic_messages import AnthropicMessages
from local.simulator.calls import Prompt
from local.simulator.gemini import Gemini
from local.simulator.openai_chat import OpenAIChat
from schemas.events import LlmCall, Message
from tests.examples import call
from tests.media import FILES, TOOL_TURNS, URL, WEATHER, medium, part, tool_call, tool_result, turn

APIS = {"openai": openai_api, "openai-compatible": compatible_api, "anthropic": anthropic_api, "google": google_api}
MODELS = {"openai": "gpt-5-mini", "openai-compatible": "llama", "anthropic": "claude-sonnet-4-5", "google": "gemini-2.5-flash"}  # fmt: skip
PNG = base64.b64encode(FILES["image/png"]).decode()
PDF = base64.b64encode(FILES["application/pdf"]).decode()
SCHEMA = orjson.loads(WEATHER["parameters"])


def asked(name: str, messages: list[Message], model: str | None = None, **changes: Any) -> LlmCall:
    """A call with these messages."""
    return call(messages=messages, model=f"{name}/{model or MODELS[name]}", **changes)


def body_of(name: str, messages: list[Message], model: str | None = None, **changes: Any) -> dict[str, Any]:
    """The body of the provider call with these messages."""
    translated: dict[str, Any] = APIS[name].translate_request(asked(name, messages, model, **changes))
    return translated


LOOK = turn("user", text_part("Look:"), medium("image/png"), medium("image/webp", url=URL), medium("application/pdf"))


def test_media_in_openais_terms() -> None:
    """Images are URLs of https or of data, a file is a data URL with a name, audio is base64 with the name of its format."""
    [message] = body_of("openai", [LOOK])["messages"]
    assert message["content"] == [
        {"type": "text", "text": "Look:"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
        {"type": "image_url", "image_url": {"url": URL}},
        {"type": "file", "file": {"filename": "file.pdf", "file_data": f"data:application/pdf;base64,{PDF}"}},
    ]
    [message] = body_of("openai", [turn("user", medium("audio/mpeg"), medium("audio/wav"))])["messages"]
    assert [part["input_audio"]["format"] for part in message["content"]] == ["mp3", "wav"]
    assert base64.b64decode(message["content"][1]["input_audio"]["data"]) == FILES["audio/wav"]


def test_media_in_anthropics_terms() -> None:
    """Images and documents have a source, of base64 or of a URL."""
    [message] = body_of("anthropic", [LOOK])["messages"]
    assert message["content"] == [
        {"type": "text", "text": "Look:"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
        {"type": "image", "source": {"type": "url", "url": URL}},
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": PDF}},
    ]


def test_media_in_googles_terms() -> None:
    """Bytes are inline data, URLs are file data, and MP3 has the name that Gemini knows."""
    [content] = body_of("google", [turn("user", *LOOK["content"], medium("audio/mpeg"))])["contents"]
    assert content["parts"][:4] == [
        {"text": "Look:"},
        {"inlineData": {"mimeType": "image/png", "data": PNG}},
        {"fileData": {"mimeType": "image/webp", "fileUri": URL}},
        {"inlineData": {"mimeType": "application/pdf", "data": PDF}},
    ]
    assert content["parts"][4]["inlineData"]["mimeType"] == "audio/mp3"


@pytest.mark.parametrize(
    ("media_type", "url", "says"),
    [
        (None, URL, "without a media_type"), ("image/png", "https://www.youtube.com/watch?v=x", "www.youtube.com"),
        ("image/png", "https://youtu.be/x", "youtu.be"),
        ("image/png", "https://generativelanguage.googleapis.com/v1beta/files/x", "generativelanguage.googleapis.com"),
    ],
)  # fmt: skip
def test_gemini_gets_no_url_that_it_would_read_as_a_video(media_type: str | None, url: str, says: str) -> None:
    """Which costs hundreds of times what an image does: it is refused by name, and others take it."""
    seen = turn("user", part("image", url=url, media_type=media_type))
    with pytest.raises(ProviderError, match=says):
        body_of("google", [seen])
    assert body_of("openai", [seen])


def test_a_result_in_googles_terms_has_the_name_of_its_own_call() -> None:
    """An id may come again in a later turn, for another tool."""

    def turns(tool: str) -> list[Message]:
        return [
            {"role": "assistant", "content": [tool_call("c1", tool, "{}")]},
            {"role": "tool", "content": [tool_result("c1", "Done.")]},
        ]  # fmt: skip

    contents = body_of("google", [turn("user", text_part("Go.")), *turns("alpha"), *turns("beta")])["contents"]
    answered = [
        one["functionResponse"]["name"] for content in contents for one in content["parts"] if "functionResponse" in one
    ]
    assert answered == ["alpha", "beta"]


def test_tool_turns_in_openais_terms() -> None:
    """Calls stand beside the text of the assistant's message, each result is a message of role tool."""
    body = body_of("openai", TOOL_TURNS, tools=[WEATHER], tool_choice="required")
    assert body["messages"][1:] == [
        {"role": "assistant", "content": [{"type": "text", "text": "I look."}], "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Rome"}'}},
            {"id": "c2", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}},
        ]},
        {"role": "tool", "tool_call_id": "c1", "content": '{"celsius":30}'},
        {"role": "tool", "tool_call_id": "c2", "content": "Snow."},
    ]  # fmt: skip
    function = {"name": "weather", "description": "The weather in a city.", "parameters": SCHEMA}
    assert body["tools"] == [{"type": "function", "function": function}]
    assert body["tool_choice"] == "required"
    silent = turn("assistant", tool_call())
    assert body_of("openai", [silent])["messages"][0]["content"] is None


def test_tool_turns_in_anthropics_terms() -> None:
    """Calls are blocks of the assistant, neighbouring results are blocks of one turn of the user, odd ids are made fit."""
    body = body_of("anthropic", TOOL_TURNS, tools=[WEATHER], tool_choice="weather")
    assert body["messages"][1:] == [
        {"role": "assistant", "content": [
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Rome"}},
            {"type": "tool_use", "id": "c2", "name": "weather", "input": {"city": "Oslo"}},
        ]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "c1", "content": '{"celsius":30}'},
            {"type": "tool_result", "tool_use_id": "c2", "content": "Snow."},
        ]},
    ]  # fmt: skip
    assert body["tools"] == [
        {"name": "weather", "description": "The weather in a city.", "input_schema": SCHEMA},
    ]
    foreign = body_of("anthropic", [turn("assistant", tool_call("f.x:0")), turn("tool", tool_result("f.x:0"))])
    assert foreign["messages"][0]["content"][0]["id"] == foreign["messages"][1]["content"][0]["tool_use_id"] == "f_x_0"


def test_tool_turns_in_googles_terms() -> None:
    """Results stand under the function's name in one turn, as the object that they are or as its output."""
    body = body_of("google", TOOL_TURNS, tools=[WEATHER], tool_choice="weather")
    assert body["contents"][1:] == [
        {"role": "model", "parts": [
            {"text": "I look."},
            {"functionCall": {"id": "c1", "name": "weather", "args": {"city": "Rome"}}},
            {"functionCall": {"id": "c2", "name": "weather", "args": {"city": "Oslo"}}},
        ]},
        {"role": "user", "parts": [
            {"functionResponse": {"id": "c1", "name": "weather", "response": {"celsius": 30}}},
            {"functionResponse": {"id": "c2", "name": "weather", "response": {"output": "Snow."}}},
        ]},
    ]  # fmt: skip
    declared = {"name": "weather", "description": "The weather in a city.", "parametersJsonSchema": SCHEMA}
    assert body["tools"] == [{"functionDeclarations": [declared]}]


def test_gemini_3_gets_a_signature_with_every_call() -> None:
    """From version 3 on a call without a signature is refused, and ours is lost: what Google documents stands for it."""
    [_, model, _] = body_of("google", TOOL_TURNS, "gemini-3-pro-preview")["contents"]
    assert [part.get("thoughtSignature") for part in model["parts"]] == [
        None, "skip_thought_signature_validator", "skip_thought_signature_validator",
    ]  # fmt: skip


CHOICES = [
    ("openai", None, None), ("openai", "auto", "auto"), ("openai", "none", "none"),
    ("openai", "weather", {"type": "function", "function": {"name": "weather"}}),
    ("anthropic", None, None), ("anthropic", "auto", {"type": "auto"}), ("anthropic", "none", {"type": "none"}),
    ("anthropic", "required", {"type": "any"}), ("anthropic", "weather", {"type": "tool", "name": "weather"}),
    ("google", None, None), ("google", "auto", {"functionCallingConfig": {"mode": "AUTO"}}),
    ("google", "none", {"functionCallingConfig": {"mode": "NONE"}}),
    ("google", "required", {"functionCallingConfig": {"mode": "ANY"}}),
    ("google", "weather", {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["weather"]}}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "choice", "theirs"), CHOICES)
def test_every_choice_has_the_providers_word(name: str, choice: str | None, theirs: Any) -> None:
    """Auto, none, required and a tool's name, and nothing where the request says nothing."""
    body = body_of(name, TOOL_TURNS, tools=[{**WEATHER, "description": None}], tool_choice=choice)
    assert body.get("toolConfig" if name == "google" else "tool_choice") == theirs
    assert "description" not in orjson.dumps(body["tools"]).decode()


@pytest.mark.parametrize(
    ("name", "options"),
    [("openai", {"tools": "[]"}), ("anthropic", {"tool_choice": "{}"}), ("google", {"toolConfig": "{}"})],
)
def test_options_do_not_replace_the_requests_tools(name: str, options: dict[str, str]) -> None:
    """A request names no tools in its options, its own or the provider's: what those read and cost nothing bounds."""
    for messages, tools in ((TOOL_TURNS, [WEATHER]), ([turn("user", text_part("Hi."))], [])):
        with pytest.raises(ProviderError, match=r"provider_options may not set"):
            body_of(name, messages, tools=tools, provider_options=options)


@pytest.mark.parametrize("name", APIS)
def test_what_an_api_lacks_is_refused_before_it_is_sent(name: str) -> None:
    """The translation refuses what admission would have refused, with the provider's name."""
    unknown = turn("user", medium("image/gif" if name == "google" else "audio/wav", url=URL))
    with pytest.raises(ProviderError) as refused:
        body_of(name, [unknown])
    assert refused.value.error["code"] == "caller_unsupported_feature"
    assert name in refused.value.error["message"]
    assert refused.value.charged == "no"


@pytest.mark.parametrize("turns", [[LOOK], TOOL_TURNS])
def test_the_echo_knows_text_only(turns: list[Message]) -> None:
    """The echo refuses by name what it cannot say again."""
    with pytest.raises(ProviderError, match=r"caller_unsupported_feature.*echo"):
        reply_to(call(messages=turns, model="echo/echo"))


def test_a_google_call_without_an_id_gets_one_of_its_response() -> None:
    """Two calls of one answer have two ids, the same whenever the answer is read."""
    function = {"functionCall": {"name": "weather", "args": {}}}
    body = {"responseId": "r1", "candidates": [{"content": {"parts": [function, function]}, "finishReason": "STOP"}]}
    ids = [part["tool_call_id"] for part in google_api.translate_response(body).output]
    assert ids == ["r1-0", "r1-1"]


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), min_size=1, max_size=20).filter(
    lambda t: "[[" not in t
)
USER_PARTS = st.one_of(
    WORDS.map(text_part), st.sampled_from(sorted(FILES)).map(medium),
    st.sampled_from(sorted(FILES)).map(lambda media_type: medium(media_type, url=URL)),
)  # fmt: skip
ARGUMENTS = st.dictionaries(WORDS, st.one_of(st.integers(-9, 9), WORDS, st.none()), max_size=3)


@st.composite
def conversations(draw: st.DrawFn) -> list[Message]:
    """A conversation that a caller could send: turns of user and assistant, tool calls answered right behind them."""
    made: list[Message] = [turn("system", text_part(draw(WORDS)))] if draw(st.booleans()) else []
    for number in range(draw(st.integers(1, 3))):
        made.append(turn("user", *draw(st.lists(USER_PARTS, min_size=1, max_size=3))))
        ids = [f"c{number}.{at}" for at in range(draw(st.integers(0, 2)))]
        said = [text_part(draw(WORDS))] if not ids or draw(st.booleans()) else []
        calls = [tool_call(call_id, arguments=orjson.dumps(draw(ARGUMENTS)).decode()) for call_id in ids]
        made.append(turn("assistant", *said, *calls))
        made += [turn("tool", tool_result(call_id, draw(WORDS))) for call_id in ids]
    return [*made, turn("user", text_part(draw(WORDS)))]


def read_by_simulator(name: str, model: str, body: dict[str, Any]) -> Prompt:
    """What the simulator's dialect of the provider, which checks as the real API does, makes of a body."""
    body = orjson.loads(orjson.dumps(body))
    match name:
        case "anthropic":
            return AnthropicMessages().read({"Anthropic-Version": "2023-06-01"}, body, None)
        case "google":
            return Gemini().read({}, body, f"{model}:generateContent")
        case _:
            return OpenAIChat().read({}, body, None)


@settings(max_examples=60, deadline=None)
@given(conversations(), st.sampled_from(sorted(APIS)), st.sampled_from([None, "auto", "none", "required", "weather"]))
def test_every_admitted_conversation_is_refused_by_name_or_accepted(
    messages: list[Message], name: str, choice: str | None
) -> None:
    """What admission lets pass, a provider's API takes whole, or the provider is named that does not."""
    made = asked(
        name, messages, "gemini-3-pro-preview" if name == "google" else None, tools=[WEATHER], tool_choice=choice
    )
    assert problem_of(made["request"], 1, 2) is None
    unsupported = unsupported_by(made["request"], name, name, made["model"])
    if unsupported is not None:
        with pytest.raises(ProviderError, match=name):
            APIS[name].translate_request(made)
        return
    prompt = read_by_simulator(name, made["model"], APIS[name].translate_request(made))
    spoken = [part["text"] for message in messages for part in message["content"] if part["type"] == "text"]
    assert all((text or "").strip() in prompt.text for text in spoken)
    kinds = {part["type"] for message in messages for part in message["content"]}
    assert (prompt.media_tokens > 0) == bool(kinds & {"image", "file"})
    assert (prompt.audio_tokens > 0) == ("audio" in kinds)


NAMES = st.sampled_from(["a", "b", "c"])


def _object(properties: dict[str, Any], required: list[str], closed: bool | None) -> dict[str, Any]:
    rest = {} if closed is None else {"additionalProperties": not closed}
    return {"type": "object", "properties": properties, "required": [r for r in required if r in properties]} | rest


SCHEMAS = st.recursive(
    st.sampled_from([
        {"type": "string", "minLength": 2, "maxLength": 9}, {"type": "integer", "minimum": 3, "maximum": 7}, {"type": ["string", "null"]},
        {"type": "number", "multipleOf": 2}, {"enum": ["x", 1]}, {"type": "string", "format": "email"}, {"type": "string", "format": "iri"},
    ]),
    lambda inner: st.one_of(
        st.tuples(inner, st.integers(0, 3)).map(lambda t: {"type": "array", "items": t[0], "minItems": t[1], "maxItems": 5}),
        st.builds(_object, st.dictionaries(NAMES, inner, max_size=3), st.lists(NAMES, unique=True), st.sampled_from([True, False, None])),
        st.lists(inner, min_size=1, max_size=2).map(lambda options: {"anyOf": options}),
        st.lists(inner, min_size=1, max_size=2).map(lambda options: {"oneOf": options}),
    ),
    max_leaves=6,
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(NAMES, SCHEMAS, min_size=1, max_size=3),
    st.lists(NAMES, unique=True),
    st.sampled_from([True, False, None]),
)
def test_any_schema_is_sent_in_a_form_that_the_provider_takes(
    properties: dict[str, Any], required: list[str], closed: bool | None
) -> None:
    """Optional properties, bounds and keywords that a provider refuses do not keep a request from being answered."""
    schema = _object(properties, required, closed)
    for name in APIS:
        made = asked(name, [turn("user", text_part("Go."))])
        made["request"]["parameters"] = {
            **made["request"]["parameters"],
            "response_format": orjson.dumps(schema).decode(),
        }
        prompt = read_by_simulator(name, made["model"], APIS[name].translate_request(made))
        assert prompt.schema is not None
        assert set(prompt.schema["properties"]) == set(properties)


def test_openai_is_strict_where_it_can_be() -> None:
    """A schema that strict mode takes is sent as binding, any other as guidance."""
    closed = {
        "type": "object",
        "properties": {"a": {"type": "string"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    nested = {
        **closed,
        "properties": {"a": {"type": ["object", "null"], "properties": {}, "additionalProperties": False}},
    }
    for schema, binding in (
        (closed, True), (nested, True), ({**closed, "required": []}, False), ({"type": "object"}, False), ({}, False),
        ({**closed, "additionalProperties": True}, False), ({**closed, "allOf": [{}]}, False), ({"anyOf": [closed]}, False),
        ({**closed, "properties": {"a": {"oneOf": [closed]}}}, False), ({**closed, "properties": {"a": {}}}, False),
    ):  # fmt: skip
        made = asked("openai", [turn("user", text_part("Go."))])
        made["request"]["parameters"] = {
            **made["request"]["parameters"],
            "response_format": orjson.dumps(schema).decode(),
        }
        form = openai_api.translate_request(made)["response_format"]["json_schema"]
        assert (form["schema"], form["strict"]) == (schema, binding), schema


def test_anthropic_is_told_in_words_what_its_schemas_cannot_say() -> None:
    """Bounds move into the description, objects are closed, everything that the API knows stays."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object", "required": ["age"],
        "properties": {
            "age": {"type": "integer", "minimum": 3, "description": "In years."},
            "tags": {"type": "array", "items": {"type": "string", "maxLength": 9}, "minItems": 2},
            "mail": {"oneOf": [{"type": "string", "format": "email"}, {"$ref": "#/$defs/none"}]},
        },
        "$defs": {"none": {"type": "null"}},
    }  # fmt: skip
    assert described(schema) == {
        "type": "object", "required": ["age"], "additionalProperties": False,
        "properties": {
            "age": {"type": "integer", "description": 'In years.\n{"minimum":3}'},
            "tags": {"type": "array", "items": {"type": "string", "description": '{"maxLength":9}'}, "description": '{"minItems":2}'},
            "mail": {"anyOf": [{"type": "string", "format": "email"}, {"$ref": "#/$defs/none"}]},
        },
        "$defs": {"none": {"type": "null"}},
    }  # fmt: skip
