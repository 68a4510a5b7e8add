"""The parts of the providers that need no server: translations, failures, retry waits, secrets."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, cast

import orjson
import pytest

from agents.providers import PROVIDERS, provider
from agents.providers import anthropic as anthropic_api
from agents.providers import google as google_api
from agents.providers import openai as openai_api
from agents.providers import openai_compatible as compatible_api
from agents.providers.base import is_empty
from agents.providers.echo import reply_to
from agents.providers.exchange import key_problem
from agents.providers.failures import code_of, retry_after_ms, said, status_failure, without_secrets
from config.settings import PROVIDER_NAMES, ProviderSettings, SettingsError
from core.errors import CODES, ProviderError
from core.reply import text_part
from schemas.events import LlmCall, Message, Parameters
from tests.examples import call

SETTINGS = ProviderSettings("openai", "sk-proj-abcdefghijkl", None, "OPENAI_API_KEY")
APIS = {"openai": openai_api, "openai-compatible": compatible_api, "anthropic": anthropic_api, "google": google_api}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}


def llm_call(
    name: str = "openai",
    model: str = "gpt-5-mini",
    messages: list[Message] | None = None,
    options: dict[str, str] | None = None,
    **parameters: Any,
) -> LlmCall:
    """An admitted call with these messages and parameters, of at most 256 output tokens."""
    made = call(model=f"{name}/{model}", provider_options=options or {})
    if messages is not None:
        made["request"]["messages"] = messages
    made["request"]["parameters"] = cast(Parameters, made["request"]["parameters"] | parameters)
    return made | {"max_output_tokens": 256}


def message(role: str, *said: str) -> Message:
    """A message of text parts."""
    return Message(role=role, content=[text_part(text) for text in said])


CONVERSATION = [
    message("system", "Be brief."), message("system", "Be kind."), message("user", "Hello,", "who are you?"),
    message("assistant", "A model."), message("user", "Thanks."),
]  # fmt: skip
ALL: dict[str, Any] = {
    "temperature": 0.25, "top_p": 0.5, "stop": ["END"], "seed": 7, "reasoning_effort": "minimal",
    "response_format": orjson.dumps(SCHEMA).decode(),
}  # fmt: skip


def test_the_table_of_providers_has_the_names_that_the_settings_know() -> None:
    """A provider cannot be configured without being callable, or the other way round."""
    assert tuple(PROVIDERS) == PROVIDER_NAMES


def test_a_worker_for_one_provider_does_not_load_the_other_sdks() -> None:
    """Importing the table and building the echo loads no SDK and no HTTP library."""
    check = (
        "import sys; from agents.providers import provider; from config.settings import ProviderSettings;"
        "provider(ProviderSettings('echo', None, None, ''));"
        "print(sorted({'openai', 'anthropic', 'google.genai', 'aiohttp', 'httpx2'} & set(sys.modules)))"
    )
    assert subprocess.check_output([sys.executable, "-c", check], text=True).strip() == "[]"


def test_openai_takes_every_parameter() -> None:
    """The body of a full OpenAI request, field by field."""
    body = openai_api.translate_request(llm_call(messages=CONVERSATION, **ALL))
    assert body == {
        "model": "gpt-5-mini",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": [{"type": "text", "text": "Hello,"}, {"type": "text", "text": "who are you?"}]},
            {"role": "assistant", "content": "A model."},
            {"role": "user", "content": "Thanks."},
        ],
        "max_completion_tokens": 256,
        "temperature": 0.25,
        "top_p": 0.5,
        "stop": ["END"],
        "seed": 7,
        "reasoning_effort": "minimal",
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}},
    }


def test_compatible_servers_get_max_tokens() -> None:
    """The bound has the name that older servers know, and nothing else differs from OpenAI's body."""
    theirs = compatible_api.translate_request(llm_call(messages=CONVERSATION, **ALL))
    ours = openai_api.translate_request(llm_call(messages=CONVERSATION, **ALL))
    assert theirs.pop("max_tokens") == ours.pop("max_completion_tokens") == 256
    assert theirs == ours


def test_anthropic_takes_every_parameter_it_has() -> None:
    """The system text stands beside the messages, the lowest effort is low."""
    body = anthropic_api.translate_request(
        llm_call("anthropic", "claude-sonnet-4-5", CONVERSATION, **ALL | {"seed": None})
    )
    assert body == {
        "model": "claude-sonnet-4-5",
        "max_tokens": 256,
        "system": "Be brief.\n\nBe kind.",
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Hello,"}, {"type": "text", "text": "who are you?"}]},
            {"role": "assistant", "content": "A model."},
            {"role": "user", "content": "Thanks."},
        ],
        "temperature": 0.25,
        "top_p": 0.5,
        "stop_sequences": ["END"],
        "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}},
    }


@pytest.mark.parametrize(
    ("model", "thinking"),
    [("gemini-2.5-flash", {"thinkingBudget": 1024}), ("gemini-3-pro", {"thinkingLevel": "MINIMAL"})],
)
def test_google_takes_every_parameter(model: str, thinking: dict[str, Any]) -> None:
    """The system text is an instruction of its own, the assistant is the model, effort is a budget or a level."""
    body = google_api.translate_request(llm_call("google", model, CONVERSATION, **ALL))
    assert body == {
        "systemInstruction": {"parts": [{"text": "Be brief.\n\nBe kind."}]},
        "contents": [
            {"role": "user", "parts": [{"text": "Hello,"}, {"text": "who are you?"}]},
            {"role": "model", "parts": [{"text": "A model."}]},
            {"role": "user", "parts": [{"text": "Thanks."}]},
        ],
        "generationConfig": {
            "maxOutputTokens": 256, "temperature": 0.25, "topP": 0.5, "seed": 7, "stopSequences": ["END"],
            "responseMimeType": "application/json", "responseJsonSchema": SCHEMA, "thinkingConfig": thinking,
        },
    }  # fmt: skip


#: What makes the model answer otherwise, beside messages and tools.
CHANGING = {**{name: {name: value} for name, value in ALL.items()}, "provider_options": {"options": {"metadata": "{}"}}}
#: What a provider has nothing for, so that it is refused; the echo follows a schema as far as the messages do.
LACKING = {"anthropic": {"seed"}, "echo": CHANGING.keys() - {"response_format"}}


def test_the_parameters_below_are_all_there_are() -> None:
    """A parameter that is added has to be mapped or refused by every provider."""
    assert CHANGING.keys() == Parameters.__annotations__.keys() - {"max_output_tokens"} | {"provider_options"}


@pytest.mark.parametrize("parameter", CHANGING)
@pytest.mark.parametrize("name", [*APIS, "echo"])
def test_a_parameter_is_sent_or_refused_by_name(name: str, parameter: str) -> None:
    """No provider drops a parameter in silence: its body holds it, or the caller is told which one it does not offer."""
    translate: Any = APIS[name].translate_request if name in APIS else reply_to
    asked = llm_call(name, **CHANGING[parameter])
    if parameter not in LACKING.get(name, ()):
        assert translate(asked) != translate(llm_call(name)) or name == "echo"
        return
    with pytest.raises(ProviderError) as refused:
        translate(asked)
    assert (refused.value.error["code"], refused.value.charged) == ("caller_unsupported_feature", "no")
    assert f"{parameter} is not offered by {name}" in refused.value.error["message"]


@pytest.mark.parametrize("name", APIS)
def test_what_is_not_asked_for_is_not_sent(name: str) -> None:
    """A bare request leaves every default to the provider."""
    body = APIS[name].translate_request(llm_call(name))
    sent = {*body, *body.get("generationConfig", {})}
    assert sent <= {"model", "messages", "contents", "generationConfig", "max_tokens", "max_completion_tokens", "maxOutputTokens"}  # fmt: skip


@pytest.mark.parametrize("name", APIS)
def test_provider_options_win(name: str) -> None:
    """The caller's own fields go into the body and replace ours, objects field by field."""
    options = {"metadata": '{"a": 1}', "temperature": "1.5", "generationConfig": '{"topK": 5, "temperature": 1.5}'}
    body = APIS[name].translate_request(llm_call(name, options=options, temperature=0.1))
    assert body["metadata"] == {"a": 1}
    assert body["temperature"] == 1.5
    assert body["generationConfig"]["topK"] == 5
    assert body["generationConfig"]["temperature"] == 1.5
    if name == "google":
        assert body["generationConfig"]["maxOutputTokens"] == 256


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("openai", {"model": '"gpt-5-pro"'}), ("openai", {"messages": "[]"}), ("openai", {"stream": "true"}),
        ("openai", {"n": "8"}), ("openai", {"max_tokens": "100000"}), ("openai", {"max_completion_tokens": "100000"}),
        ("openai-compatible", {"max_tokens": "100000"}), ("anthropic", {"model": '"x"'}),
        ("anthropic", {"max_tokens": "1"}), ("google", {"contents": "[]"}),
        ("google", {"generationConfig": '{"maxOutputTokens": 100000}'}),
        ("google", {"generation_config": '{"max_output_tokens": 100000}'}),
        ("google", {"generationConfig": '{"candidateCount": 8}'}), ("openai", {"service_tier": '"priority"'}),
        ("google", {"generationConfig": "null"}), ("google", {"generation_config": "{}"}),
        ("google", {"tools": '[{"googleSearch": {}}]'}), ("anthropic", {"tools": '[{"type": "web_search_20250305"}]'}),
        ("openai", {"web_search_options": "{}"}), ("openai-compatible", {"models": '["other/dearer"]'}),
        ("openai-compatible", {"n_predict": "100000"}), ("openai", {"metadata": '{"a":' * 150 + "1" + "}" * 150}),
        ("anthropic", {"speed": '"fast"'}), ("anthropic", {"inference_geo": '"us"'}),
        ("google", {"serviceTier": '"priority"'}), ("google", {"cachedContent": '"cachedContents/x"'}),
    ],
)  # fmt: skip
def test_options_cannot_change_what_was_reserved(name: str, options: dict[str, str]) -> None:
    """An option that would change model or messages, or make the call dearer than its reservation, is refused by name."""
    with pytest.raises(ProviderError) as refused:
        APIS[name].translate_request(llm_call(name, options=options))
    assert refused.value.error["code"] == "caller_invalid_request"
    assert refused.value.charged == "no"
    assert "provider_options" in refused.value.error["message"]


def test_a_cheaper_tier_may_be_asked_for_and_what_served_the_call_is_kept() -> None:
    """Flex is sent as asked; an answer from any but the standard tier says so, in a refusal too."""
    assert openai_api.translate_request(llm_call(options={"service_tier": '"flex"'}))["service_tier"] == "flex"
    name, body, _, _ = REFUSALS[0]
    answer = {"choices": [{"message": {"content": "Hi."}, "finish_reason": "stop"}], "service_tier": "flex"}
    assert openai_api.translate_response(answer).terms == "service tier flex"
    assert openai_api.translate_response(answer | {"service_tier": "default"}).terms is None
    with pytest.raises(ProviderError) as refused:
        APIS[name].translate_response(body | {"service_tier": "priority"})
    assert refused.value.reply is not None
    assert refused.value.reply.terms == "service tier priority"


@pytest.mark.parametrize("name", APIS)
@pytest.mark.parametrize("bad", [{"options": {"metadata": "{"}}, {"response_format": "{"}])
def test_options_and_schemas_must_be_json(name: str, bad: dict[str, Any]) -> None:
    """Text that is not JSON is the caller's error and names its field."""
    with pytest.raises(ProviderError) as refused:
        APIS[name].translate_request(llm_call(name, **bad))
    assert refused.value.error["code"] == "caller_invalid_request"
    assert "metadata" in refused.value.error["message"] or "response_format" in refused.value.error["message"]


REFUSALS: list[tuple[str, dict[str, Any], str, bool]] = [
    ("openai", {"choices": [{"message": {"content": None, "refusal": "I can't."}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 3, "completion_tokens": 4}}, "maybe", True),
    ("openai", {"choices": [{"message": {"content": "Par"}, "finish_reason": "content_filter"}]}, "maybe", False),
    ("anthropic", {"content": [], "stop_reason": "refusal", "usage": {"input_tokens": 3, "output_tokens": 4}}, "maybe", True),
    ("anthropic", {"content": [], "stop_reason": "refusal"}, "maybe", False),
    ("google", {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 3}}, "no", False),
    ("google", {"candidates": [{"finishReason": "SAFETY"}], "usageMetadata": {"promptTokenCount": 3}}, "maybe", True),
    ("google", {"candidates": [{"finishReason": "PROHIBITED_CONTENT"}]}, "maybe", False),
]  # fmt: skip


@pytest.mark.parametrize(("name", "body", "charged", "used"), REFUSALS)
def test_refusals_keep_what_they_used(name: str, body: dict[str, Any], charged: str, used: bool) -> None:
    """A refusal carries its usage where it was reported, and is free where the prompt was blocked before an answer."""
    with pytest.raises(ProviderError) as refused:
        APIS[name].translate_response(body)
    assert refused.value.error["code"] == "provider_content_refused"
    assert refused.value.charged == charged
    assert (refused.value.reply is not None) is used
    if refused.value.reply is not None:
        assert refused.value.reply.tokens["input_uncached"] == 3
        assert refused.value.reply.provider_usage is not None


TOOL_CALLS: list[tuple[str, dict[str, Any]]] = [
    ("openai", {"choices": [{"finish_reason": "tool_calls", "message": {"content": None, "tool_calls": [
        {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": '{"q":1}'}}]}}]}),
    ("anthropic", {"stop_reason": "tool_use", "content": [
        {"type": "thinking", "thinking": "…", "signature": "s"},
        {"type": "tool_use", "id": "c1", "name": "look_up", "input": {"q": 1}}]}),
    ("google", {"candidates": [{"finishReason": "STOP", "content": {"parts": [
        {"text": "…", "thought": True}, {"functionCall": {"id": "c1", "name": "look_up", "args": {"q": 1}}}]}}]}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "body"), TOOL_CALLS)
def test_tool_calls_become_parts(name: str, body: dict[str, Any]) -> None:
    """A call of a tool that the caller named in its options arrives as a part; thinking does not."""
    reply = APIS[name].translate_response(body)
    assert reply.finish_reason == "tool_calls"
    assert [(p["type"], p["tool_call_id"], p["tool_name"], p["tool_arguments"]) for p in reply.output] == [
        ("tool_call", "c1", "look_up", '{"q":1}')
    ]
    assert reply.provider_usage is None


@pytest.mark.parametrize(
    ("name", "reason", "ours"),
    [
        ("openai", "stop", "stop"), ("openai", "length", "length"), ("openai", "something_new", "other"),
        ("openai", None, "other"), ("anthropic", "end_turn", "stop"), ("anthropic", "stop_sequence", "stop"),
        ("anthropic", "max_tokens", "length"), ("anthropic", "pause_turn", "other"), ("google", "STOP", "stop"),
        ("google", "MAX_TOKENS", "length"), ("google", "MALFORMED_FUNCTION_CALL", "other"),
    ],
)  # fmt: skip
def test_reasons_to_stop_have_one_name(name: str, reason: str | None, ours: str) -> None:
    """Each provider's words for why the answer ended become ours, unknown ones `other`."""
    bodies: dict[str, dict[str, Any]] = {
        "openai": {"choices": [{"message": {"content": "Hi."}, "finish_reason": reason}]},
        "anthropic": {"content": [{"type": "text", "text": "Hi."}], "stop_reason": reason},
        "google": {"candidates": [{"content": {"parts": [{"text": "H"}, {"text": "i."}]}, "finishReason": reason}]},
    }
    reply = APIS[name].translate_response(bodies[name])
    assert reply.finish_reason == ours
    assert reply.output == (text_part("Hi."),)


MALFORMED: list[Any] = [{"finishReason": "MALFORMED_FUNCTION_CALL", "finishMessage": "Malformed function call"}]
EMPTY: list[tuple[str, dict[str, Any]]] = [
    ("openai", {"choices": [{"message": {"content": None}, "finish_reason": "stop"}]}),
    ("openai", {"choices": [{"message": {"content": ""}, "finish_reason": None}]}),
    ("openai-compatible", {"choices": [{"message": {"content": None, "tool_calls": []}, "finish_reason": "tool_calls"}]}),
    ("anthropic", {"content": [], "stop_reason": "end_turn", "usage": {"output_tokens": 3}}),
    ("anthropic", {"content": [{"type": "thinking", "thinking": "…"}], "stop_reason": "pause_turn"}),
    ("google", {"candidates": MALFORMED}),
    ("google", {"candidates": [{"content": {"parts": [{"text": ""}]}, "finishReason": "STOP"}]}),
    ("google", {"candidates": [{"content": {"parts": [{"text": "…", "thought": True}]}, "finishReason": "STOP"}]}),
]  # fmt: skip
EXPLAINED: list[tuple[str, dict[str, Any]]] = [
    ("openai", {"choices": [{"message": {"content": None}, "finish_reason": "length"}]}),
    ("anthropic", {"content": [], "stop_reason": "max_tokens"}), ("google", {"candidates": [{"finishReason": "MAX_TOKENS"}]}),
    *TOOL_CALLS,
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "body", "empty"), [(*each, True) for each in EMPTY] + [(*each, False) for each in EXPLAINED]
)
def test_an_answer_that_says_nothing_is_told_from_one_that_is_cut(name: str, body: dict[str, Any], empty: bool) -> None:
    """No text and no tool's call is no answer, unless the bound on its length says why, or a stop text may have."""
    reply = APIS[name].translate_response(body)
    assert is_empty(llm_call(name), reply) is empty
    assert is_empty(llm_call(name, stop=["END"]), reply) is (empty and reply.finish_reason != "stop")


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "provider_invalid_request"), (401, "provider_auth"), (402, "provider_invalid_request"),
        (403, "provider_auth"), (404, "provider_unknown_model"), (408, "provider_timeout"),
        (413, "provider_invalid_request"), (422, "provider_invalid_request"), (429, "provider_rate_limited"),
        (500, "provider_unavailable"), (502, "provider_unavailable"), (503, "provider_unavailable"),
        (504, "provider_unavailable"), (529, "provider_unavailable"), (304, "provider_bad_answer"),
    ],
)  # fmt: skip
def test_every_status_has_its_code(status: int, code: str) -> None:
    """The table of HTTP statuses, which is the same for every provider; an error answer is not charged."""
    failed = status_failure(SETTINGS, status, {}, {"error": {"message": "As it is."}})
    assert code in CODES
    assert (failed.error["code"], failed.error["provider_status"], failed.charged) == (code, status, "no")
    assert "As it is" in failed.error["message"]


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({"message": "As it is.", "code": "context_length_exceeded"}, "provider_context_too_long"),
        ({"message": "prompt is too long: 214000 tokens > 200000 maximum"}, "provider_context_too_long"),
        ({"message": "The input token count (9) exceeds the maximum number of tokens allowed (8)."}, "provider_context_too_long"),
        ({"message": "This model's maximum context length is 4096 tokens.", "code": 400}, "provider_context_too_long"),
        ({"message": "max_tokens is too large: 100000"}, "provider_invalid_request"),
    ],
)  # fmt: skip
def test_a_context_too_long_has_a_code_of_its_own(said: dict[str, Any], code: str) -> None:
    """Each provider says in its own way that a prompt has too many tokens; a route can let just that go to a larger model."""
    assert status_failure(SETTINGS, 400, {}, {"error": said}).error["code"] == code


def test_the_reason_in_a_400_can_say_more() -> None:
    """Gemini answers a refused key, and Azure a filtered prompt, with 400; both are told apart from a bad request."""
    refused_key = {"error": {"code": 400, "details": [{"@type": "ErrorInfo", "reason": "API_KEY_INVALID"}]}}
    assert code_of(400, refused_key) == "provider_auth"
    assert code_of(400, [refused_key]) == "provider_auth"
    assert code_of(400, {"error": {"code": "content_filter"}}) == "provider_content_refused"


NOW = 1_760_000_000.0
RETRY_INFO = {"error": {"details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "3.5s"}]}}


@pytest.mark.parametrize(
    ("headers", "body", "wait"),
    [
        ({"retry-after": "7"}, "", 7_000), ({"retry-after": "0.25"}, "", 250), ({"retry-after": "-1"}, "", 0),
        ({"retry-after-ms": "1250", "retry-after": "7"}, "", 1_250),
        ({"retry-after": "Thu, 09 Oct 2025 08:53:30 GMT"}, "", 10_000),
        ({"retry-after": "Thu, 09 Oct 2025 08:53:00 GMT"}, "", 0),
        ({"retry-after": "1767225600000000"}, "", 86_400_000), ({"retry-after-ms": "1e20"}, "", 86_400_000),
        ({"retry-after": "soon"}, "", None), ({"retry-after": "inf"}, "", None), ({"retry-after-ms": "nan"}, "", None),
        ({}, RETRY_INFO, 3_500), ({}, [RETRY_INFO], 3_500), ({}, {"error": {"details": "none"}}, None), ({}, "", None),
    ],
)  # fmt: skip
def test_retry_after_in_all_its_forms(headers: dict[str, str], body: object, wait: int | None) -> None:
    """Seconds, an HTTP date, milliseconds and Gemini's RetryInfo are read, a day at most; nonsense is no wait at all."""
    assert retry_after_ms(headers, body, NOW) == wait


PLANTED = [
    "sk-proj-abcdefghijkl", "sk-ant-api03-Zm9vYmFy_xyz", "AIzaSyD-1234567890abcdefghijklmnopqrstu", "hf_abcdefghijklmnop",
    "gsk_abcdefghijklmnop", "xai-abcdefghijklmnop",
]  # fmt: skip


@pytest.mark.parametrize("secret", PLANTED)
def test_what_looks_like_a_key_is_hidden(secret: str) -> None:
    """Keys are replaced wherever they stand in a text, in full, and the words around them stay."""
    for text in (
        f"Key {secret} is wrong",
        f'{{"x-api-key": "{secret}"}}',
        f"?key={secret}&alt=sse",
        f"a Bearer {secret},",
    ):
        assert secret not in without_secrets(text, None)
        assert secret[4:16] not in without_secrets(text, None)
    assert without_secrets(f"Key {secret} is wrong", None) == "Key [secret] is wrong"


def test_keys_without_a_form_are_hidden() -> None:
    """Our own key is replaced whatever it looks like, and so is whatever follows Bearer, x-api-key or asterisks."""
    assert without_secrets("the key 0123abcd is wrong", "0123abcd") == "the key [secret] is wrong"
    for text in ("Bearer abc.def-ghi", "x-api-key: abc.def-ghi", "api_key=abc.def-ghi", "abc****-ghi"):
        assert "ghi" not in without_secrets(f"Wrong: {text}", None)


def test_a_long_message_is_cut_after_its_secrets_are_gone() -> None:
    """A key that stands across the cut leaves no half behind."""
    text = without_secrets("x " * 145 + "sk-proj-abcdefghijklmnopqrstuvwxyz", None)
    assert len(text) <= 300
    assert "sk-" not in text


def test_a_long_quote_leaves_room_for_the_next_action() -> None:
    """What the provider said is cut, what to do about it is not."""
    failed = status_failure(SETTINGS, 401, {}, {"error": {"message": "word " * 1_000}})
    assert failed.error["message"].endswith("check OPENAI_API_KEY.")
    assert len(failed.error["message"]) < 400


def test_the_message_is_what_the_provider_said() -> None:
    """The sentence is taken from each provider's form of an error, and from plain text."""
    assert said({"error": {"message": "No."}}) == "No."
    assert said([{"error": {"message": "No."}}]) == "No."
    assert said({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}) == "Overloaded"
    assert said({"error": "No."}) == "No."
    assert said({"message": "No."}) == "No."
    assert said("No.") == "No."


@pytest.mark.parametrize("key", [None, "", "sk-with-a-line-end\n", "sk with spaces", "sk-ключ"])
def test_a_key_that_cannot_be_sent_names_its_setting_and_never_itself(key: str | None) -> None:
    """A missing or unusable key is told from the setting alone."""
    problem = key_problem(ProviderSettings("openai", key, None, "OPENAI_API_KEY"))
    assert problem is not None
    assert "OPENAI_API_KEY" in problem
    assert not key or key not in problem


def test_a_compatible_server_needs_an_address() -> None:
    """Without a base URL there is nobody to call, which is said when the worker starts."""
    with pytest.raises(SettingsError, match="MILLSTREAM_OPENAI_COMPATIBLE_BASE_URL"):
        provider(ProviderSettings("openai-compatible", None, None, "MILLSTREAM_OPENAI_COMPATIBLE_API_KEY"))
