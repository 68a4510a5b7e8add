"""What every provider behind HTTP does, shown through its real SDK against the simulator as a process of its own."""

from __future__ import annotations

import asyncio
import json
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast
from urllib.request import Request, urlopen

import orjson
import pytest

from agents.providers import anthropic as anthropic_api
from agents.providers import google as google_api
from agents.providers import openai as openai_api
from agents.providers import openai_compatible as compatible_api
from agents.providers import provider
from agents.providers.base import Provider
from agents.structured import answer_problem, answer_text, checked, repair_request
from config.settings import ProviderSettings
from core.admission import problem_of
from core.errors import CODES, ProviderError
from core.features import FEATURES
from core.reply import NO_TOKENS, Reply, text_part
from local.processes import Child, free_port, wait_until
from schemas.events import LlmCall, LlmRequest, Message, Tool
from tests.examples import call
from tests.media import FILES, WEATHER, medium, tool_call, tool_result, turn

APIS = {"openai": openai_api, "openai-compatible": compatible_api, "anthropic": anthropic_api, "google": google_api}
PATHS = {"openai": "/openai/v1", "openai-compatible": "/openai/v1", "anthropic": "/anthropic", "google": "/google"}
MODELS = {
    "openai": "gpt-5-mini", "openai-compatible": "gpt-5-mini", "anthropic": "claude-sonnet-4-5", "google": "gemini-2.5-flash",
}  # fmt: skip
KEY = "sk-contract-0123456789abcdef"
ATTEMPT = "4a1f0d5c-5d3c-5f3e-9f6e-2f6f3c1b7a10"
PAYLOADS = sorted((Path(__file__).parent / "payloads").glob("*.json"))

every_provider = pytest.mark.parametrize("name", PATHS)


class Simulator:
    """The simulator as the tests see it: an address and the account that it keeps."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._seen = 0

    def get(self, path: str) -> Any:
        """The JSON at this path."""
        with urlopen(self.url + path, timeout=10) as answer:
            return json.load(answer)

    def reset(self) -> None:
        """Forget every call."""
        urlopen(Request(f"{self.url}/_sim/reset", method="POST"), timeout=10).close()

    def calls(self) -> list[dict[str, Any]]:
        """The calls that have ended since the last reset, once none is under way."""
        wait_until(lambda: self.get("/_sim/ledger")["overall"]["in_flight"] == 0, 10, "the simulator's calls to end")
        return cast(list[dict[str, Any]], self.get("/_sim/calls?since=0"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a simulator process."""
    port = free_port()
    log = tmp_path_factory.mktemp("simulator") / "simulator.log"
    child = Child([sys.executable, "-m", "local.simulator", "--port", str(port)], log_path=log, name="simulator")
    url = f"http://127.0.0.1:{port}"

    def up() -> bool:
        try:
            urlopen(f"{url}/_sim/ledger", timeout=1).close()
        except OSError:
            return False
        return True

    try:
        wait_until(up, 20, "the simulator", child)
        yield url
    finally:
        child.stop()


@pytest.fixture
def simulator(server: str) -> Simulator:
    """The simulator with an empty account."""
    made = Simulator(server)
    made.reset()
    return made


def settings_of(name: str, base_url: str, key: str | None = KEY) -> ProviderSettings:
    """The settings of this provider at the simulator."""
    return ProviderSettings(name, key, base_url + PATHS[name], f"{name.upper()}_KEY_SETTING")


def llm_call(name: str, prompt: str = "Why is the sky blue?", directive: dict[str, Any] | None = None) -> LlmCall:
    """A call with one user message; the directive tells the simulator what to do with it."""
    asked = prompt if directive is None else f"{prompt} [[sim {json.dumps(directive)}]]"
    return call(prompt=asked, model=f"{name}/{MODELS[name]}") | {"max_output_tokens": 5_000}


def ask(settings: ProviderSettings, asked: LlmCall, timeout: float = 20) -> Reply | ProviderError:
    """What one call ends with."""

    async def once(made: Provider) -> Reply | ProviderError:
        try:
            return await made.call(asked, ATTEMPT, timeout)
        except ProviderError as failed:
            return failed

    return cast(Reply | ProviderError, run(settings, once))


def run(settings: ProviderSettings, use: Any) -> Any:
    """Run a coroutine function with a provider, which is closed after it."""

    async def main() -> Any:
        made = provider(settings)
        try:
            return await use(made)
        finally:
            await made.close()

    return asyncio.run(main())


def failed(result: Reply | ProviderError) -> ProviderError:
    """The failure, which the call must have ended with; its code is one of the closed list."""
    assert isinstance(result, ProviderError), result
    assert result.error["code"] in CODES
    return result


@every_provider
def test_an_answer_arrives_with_its_usage(simulator: Simulator, name: str) -> None:
    """A plain call gives text, finish reason, names and the tokens that the simulator counted."""
    reply = ask(settings_of(name, simulator.url), llm_call(name))
    assert isinstance(reply, Reply)
    [seen] = simulator.calls()
    assert seen["outcome"] == "answered"
    assert [part["type"] for part in reply.output] == ["text"]
    assert len(reply.output[0]["text"] or "") > 20
    assert reply.finish_reason == "stop"
    assert reply.response_model
    assert reply.provider_response_id
    assert {k: v or 0 for k, v in reply.tokens.items()} == seen["tokens"]
    assert isinstance(orjson.loads(reply.provider_usage or ""), dict)


@every_provider
def test_the_attempt_id_is_sent_along(simulator: Simulator, name: str) -> None:
    """The provider's log and ours can be laid side by side."""
    ask(settings_of(name, simulator.url), llm_call(name))
    assert [seen["client_request_id"] for seen in simulator.calls()] == [ATTEMPT]


@every_provider
def test_the_answer_is_bounded(simulator: Simulator, name: str) -> None:
    """The bound that the reservation was priced with reaches the provider, under the name that it knows."""
    reply = ask(settings_of(name, simulator.url), llm_call(name) | {"max_output_tokens": 5})
    assert isinstance(reply, Reply)
    assert reply.finish_reason == "length"
    assert reply.tokens["output_text"] == 5


@every_provider
def test_an_answer_follows_its_schema(simulator: Simulator, name: str) -> None:
    """A JSON schema reaches the provider in the form that it knows."""
    asked = llm_call(name)
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    }
    parameters = asked["request"]["parameters"]
    asked["request"]["parameters"] = {**parameters, "response_format": json.dumps(schema), "reasoning_effort": "low"}
    reply = ask(settings_of(name, simulator.url), asked)
    assert isinstance(reply, Reply)
    assert list(json.loads(reply.output[0]["text"] or "")) == ["city"]


@every_provider
def test_an_answer_off_its_schema_is_repaired(simulator: Simulator, name: str) -> None:
    """A wrong answer is told from a right one, and the provider answers rightly when it is shown what was wrong."""
    asked = llm_call(name, directive={"fault": "off_schema", "times": 1, "key": f"{name} off its schema"})
    schema = (
        '{"type":"object","properties":{"city":{"type":"string"}},"required":["city"],"additionalProperties":false}'
    )
    asked["request"]["parameters"] = {**asked["request"]["parameters"], "response_format": schema}
    wrong = ask(settings_of(name, simulator.url), asked)
    assert isinstance(wrong, Reply), wrong
    problem = answer_problem(asked["request"], wrong)
    assert problem is not None
    with pytest.raises(ProviderError) as mismatch:
        checked(asked, wrong)
    assert mismatch.value.reply is wrong
    right = ask(settings_of(name, simulator.url), repair_request(asked, answer_text(wrong), problem))
    assert isinstance(right, Reply), right
    assert checked(asked, right) is right
    assert [seen["outcome"] for seen in simulator.calls()] == ["answered", "answered"]


def conversation(name: str, *messages: Message, **changes: Any) -> LlmCall:
    """A call with these messages."""
    asked = llm_call(name)
    asked["request"] = cast(LlmRequest, {**asked["request"], "messages": list(messages), **changes})
    return asked


MEDIA = [
    (name, media_type)
    for name in PATHS
    for media_type in FILES
    if media_type in FEATURES[name].most_bytes
]  # fmt: skip


@pytest.mark.parametrize(("name", "media_type"), MEDIA)
def test_media_arrive_and_their_tokens_are_counted(simulator: Simulator, name: str, media_type: str) -> None:
    """A file of every type that the provider takes is read by it, by its bytes and by URL where it reads those, and paid for."""
    told = turn("user", text_part("What is it?"))
    plain = ask(settings_of(name, simulator.url), conversation(name, told))
    parts = [medium(media_type)]
    if parts[0]["type"] in FEATURES[name].urls:
        parts.append(medium(media_type, url="https://example.com/it"))
    for part in parts:
        reply = ask(settings_of(name, simulator.url), conversation(name, turn("user", *told["content"], part)))
        assert isinstance(reply, Reply), reply
        assert isinstance(plain, Reply)
        seen = simulator.calls()[-1]
        assert {k: v or 0 for k, v in reply.tokens.items()} == seen["tokens"]
        counted = "input_audio" if media_type.startswith("audio/") else "input_uncached"
        assert (reply.tokens[counted] or 0) > (plain.tokens[counted] or 0)  # type: ignore[literal-required]


@pytest.mark.parametrize(("name", "media_type"), MEDIA)
def test_media_that_are_not_what_they_say_are_refused_by_the_provider(
    simulator: Simulator, name: str, media_type: str
) -> None:
    """The provider's own refusal of a broken file arrives as one, unpaid."""
    broken = {**medium(media_type), "data": b"not at all"}
    failure = failed(ask(settings_of(name, simulator.url), conversation(name, turn("user", broken))))  # type: ignore[arg-type]
    assert (failure.error["code"], failure.error["provider_status"], failure.charged) == (
        "provider_invalid_request",
        400,
        "no",
    )


@every_provider
def test_what_a_provider_does_not_take_is_refused_unsent(simulator: Simulator, name: str) -> None:
    """The refusal names the provider, and nobody is called."""
    part = medium("image/gif") if name == "google" else medium("audio/mpeg", url="https://example.com/it")
    failure = failed(ask(settings_of(name, simulator.url), conversation(name, turn("user", part))))
    assert (failure.error["code"], failure.charged) == ("caller_unsupported_feature", "no")
    assert name in failure.error["message"]
    assert simulator.calls() == []


@every_provider
@pytest.mark.parametrize("choice", ["required", "weather", "none"])
def test_a_tool_is_called_and_its_result_answered(simulator: Simulator, name: str, choice: str) -> None:
    """The choice of tool is kept to; the call's arguments follow its schema, and with its result the model answers in words."""
    question = turn("user", text_part("How is the weather in Rome?"))
    other = Tool(name="time", description=None, parameters='{"type":"object","properties":{}}')
    offered = [WEATHER, other] if choice == "required" else [other, WEATHER]
    reply = ask(settings_of(name, simulator.url), conversation(name, question, tools=offered, tool_choice=choice))
    assert isinstance(reply, Reply), reply
    if choice == "none":
        assert [part["type"] for part in reply.output] == ["text"]
        return
    assert reply.finish_reason == "tool_calls"
    [part] = reply.output
    assert part["tool_name"] == "weather"
    assert list(json.loads(part["tool_arguments"] or "")) == ["city"]
    answered = [turn("assistant", part), turn("tool", tool_result(part["tool_call_id"] or "", "Sunny."))]
    assert problem_of(conversation(name, question, *answered, tools=offered)["request"], 1, 2) is None
    reply = ask(settings_of(name, simulator.url), conversation(name, question, *answered, tools=[WEATHER]))
    assert isinstance(reply, Reply), reply
    assert [part["type"] for part in reply.output] == ["text"]


@every_provider
def test_a_tool_call_as_told_arrives_as_it_is(simulator: Simulator, name: str) -> None:
    """The arguments that a model makes up arrive untouched, as JSON in text."""
    arguments = {"city": "Sankt Gallen", "days": [1, 2], "über": None}
    told = {"tool_call": {"name": "weather", "arguments": arguments}}
    reply = ask(settings_of(name, simulator.url), llm_call(name, directive=told))
    assert isinstance(reply, Reply), reply
    assert json.loads(reply.output[0]["tool_arguments"] or "") == arguments


@every_provider
def test_a_call_without_its_result_is_refused_by_the_provider(simulator: Simulator, name: str) -> None:
    """Tool calls that nobody answered are refused in the provider's own words."""
    turns = [turn("user", text_part("Hi.")), turn("assistant", tool_call()), turn("user", text_part("And?"))]
    failure = failed(ask(settings_of(name, simulator.url), conversation(name, *turns, tools=[WEATHER])))
    assert (failure.error["code"], failure.charged) == ("provider_invalid_request", "no")


USAGE = {
    "openai": {"input": 100, "cached": 50, "cache_write_5m": 25, "input_audio": 12, "output": 40, "reasoning": 30, "output_audio": 8},
    "openai-compatible": {"input": 100, "cached": 50, "output": 40, "reasoning": 30},
    "anthropic": {"input": 100, "cached": 50, "cache_write_5m": 25, "cache_write_1h": 75, "output": 40},
    "google": {"input": 100, "cached": 50, "input_audio": 12, "output": 40, "reasoning": 30, "output_audio": 8},
}  # fmt: skip


@every_provider
@pytest.mark.parametrize("zero", [False, True])
def test_token_classes_are_told_apart(simulator: Simulator, name: str, zero: bool) -> None:
    """Every class that the provider reports is counted once, in its own class, zeros included."""
    usage = dict.fromkeys(USAGE[name], 0) if zero else USAGE[name]
    reply = ask(settings_of(name, simulator.url), llm_call(name, directive={"usage": usage}))
    assert isinstance(reply, Reply)
    [seen] = simulator.calls()
    assert {k: v or 0 for k, v in reply.tokens.items()} == seen["tokens"]
    assert sum(seen["tokens"].values()) == sum(usage.values())


@every_provider
def test_usage_that_is_missing_is_unknown(simulator: Simulator, name: str) -> None:
    """An answer without usage is an answer, its tokens are unknown and not zero."""
    reply = ask(settings_of(name, simulator.url), llm_call(name, directive={"missing_usage": True}))
    assert isinstance(reply, Reply)
    assert reply.tokens == NO_TOKENS
    assert reply.provider_usage is None


FAULTS = [
    ("garbage", "provider_bad_answer", "maybe"), ("truncated", "provider_bad_answer", "maybe"),
    ("reset", "provider_connection", "maybe"), ("hang", "provider_timeout", "maybe"),
    ("empty_choices", "provider_bad_answer", "maybe"), ("error_in_200", "provider_bad_answer", "no"),
    ("refusal", "provider_content_refused", "maybe"),
]  # fmt: skip


@every_provider
@pytest.mark.parametrize(("fault", "code", "charged"), FAULTS)
def test_every_fault_has_its_error(simulator: Simulator, name: str, fault: str, code: str, charged: str) -> None:
    """Each way an answer can fail has its code and says whether it may be charged, and is tried exactly once."""
    failure = failed(
        ask(
            settings_of(name, simulator.url), llm_call(name, directive={"fault": fault}), 1.0 if fault == "hang" else 20
        )
    )
    assert (failure.error["code"], failure.charged) == (code, charged)
    assert len(simulator.calls()) == 1


@every_provider
def test_a_refusal_keeps_its_usage(simulator: Simulator, name: str) -> None:
    """A refused answer that was paid for carries the tokens that were used, and no output."""
    failure = failed(ask(settings_of(name, simulator.url), llm_call(name, directive={"fault": "refusal"})))
    [seen] = simulator.calls()
    assert failure.reply is not None
    assert failure.reply.output == ()
    assert {k: v or 0 for k, v in failure.reply.tokens.items()} == seen["tokens"]


STATUSES = [
    (400, "provider_invalid_request"), (401, "provider_auth"), (403, "provider_auth"), (404, "provider_unknown_model"),
    (408, "provider_timeout"), (413, "provider_invalid_request"), (422, "provider_invalid_request"),
    (429, "provider_rate_limited"), (500, "provider_unavailable"), (502, "provider_unavailable"),
    (503, "provider_unavailable"), (529, "provider_unavailable"),
]  # fmt: skip


@every_provider
def test_every_status_has_its_error(simulator: Simulator, name: str) -> None:
    """HTTP errors become codes of the closed list, are charged nothing, and are tried exactly once."""
    for status, code in STATUSES:
        failure = failed(ask(settings_of(name, simulator.url), llm_call(name, directive={"status": status})))
        assert (failure.error["code"], failure.error["provider_status"], failure.charged) == (code, status, "no")
        assert failure.error["message"].startswith(f"{name} answered {status}: ")
    assert len(simulator.calls()) == len(STATUSES)


@every_provider
def test_retry_after_is_read_in_its_three_forms(simulator: Simulator, name: str) -> None:
    """Seconds and milliseconds arrive exactly, an HTTP date within the second that it is written in."""
    for directive, least, most in (
        ({"retry_after": 7}, 7_000, 7_000), ({"retry_after_ms": 1_250}, 1_250, 1_250), ({"retry_after_date": 600}, 570_000, 601_000),
        ({"status": 503, "retry_after": 3}, 3_000, 3_000),
    ):  # fmt: skip
        failure = failed(ask(settings_of(name, simulator.url), llm_call(name, directive=directive)))
        assert failure.error["retry_after_ms"] is not None
        assert least <= failure.error["retry_after_ms"] <= most
    silent = failed(ask(settings_of(name, simulator.url), llm_call(name, directive={"status": 500})))
    assert silent.error["retry_after_ms"] is None


@every_provider
def test_the_timeout_bounds_the_call(simulator: Simulator, name: str) -> None:
    """An answer that comes too late ends the call as a time-out that may be charged, with the bound in its message."""
    failure = failed(ask(settings_of(name, simulator.url), llm_call(name, directive={"latency_ms": 30_000}), 0.5))
    assert (failure.error["code"], failure.charged) == ("provider_timeout", "maybe")
    assert "0.5 seconds" in failure.error["message"]
    assert [seen["outcome"] for seen in simulator.calls()] == ["cut_off"]


@every_provider
def test_cancelling_is_no_error(simulator: Simulator, name: str) -> None:
    """A cancelled call ends as cancelled, and the provider sees that its client has left."""

    async def cancel(made: Provider) -> bool:
        task = asyncio.create_task(made.call(llm_call(name, directive={"fault": "hang"}), ATTEMPT, 60))
        await until(lambda: simulator.get("/_sim/ledger")["overall"]["in_flight"] == 1)
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    assert run(settings_of(name, simulator.url), cancel)
    assert [seen["outcome"] for seen in simulator.calls()] == ["cut_off"]


@every_provider
def test_the_pool_is_no_bound(simulator: Simulator, name: str) -> None:
    """More calls than any SDK's own limit of 1,000 are under way at once; the lane alone bounds them."""
    many = 1_050

    async def crowd(made: Provider) -> None:
        hanging = llm_call(name, directive={"fault": "hang"})
        tasks = [asyncio.create_task(made.call(hanging, ATTEMPT, 120)) for _ in range(many)]
        await until(lambda: simulator.get("/_sim/ledger")["overall"]["in_flight"] == many)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    run(settings_of(name, simulator.url), crowd)


async def until(true: Any) -> None:
    """Wait until the condition holds, looking every 50 ms off the event loop."""
    for _ in range(1_200):
        if await asyncio.to_thread(true):
            return
        await asyncio.sleep(0.05)
    raise TimeoutError("The condition never held.")


@every_provider
def test_a_connection_that_cannot_be_opened_is_not_charged(name: str) -> None:
    """Where nobody listens nothing was sent, so nothing can be charged."""
    failure = failed(ask(settings_of(name, f"http://127.0.0.1:{free_port()}"), llm_call(name)))
    assert (failure.error["code"], failure.charged) == ("provider_connection", "no")


@pytest.mark.parametrize("name", ["openai", "anthropic", "google"])
def test_a_missing_key_names_its_setting(simulator: Simulator, name: str) -> None:
    """Without a key no call is made, and the answer says which setting to set."""
    failure = failed(ask(settings_of(name, simulator.url, key=None), llm_call(name)))
    assert (failure.error["code"], failure.charged) == ("provider_auth", "no")
    assert name in failure.error["message"]
    assert f"{name.upper()}_KEY_SETTING" in failure.error["message"]
    assert simulator.calls() == []


@every_provider
def test_a_refused_key_names_its_setting_and_never_itself(simulator: Simulator, name: str) -> None:
    """The provider's refusal is passed on with the setting, without the key."""
    failure = failed(ask(settings_of(name, simulator.url, key="bad-key"), llm_call(name)))
    assert (failure.error["code"], failure.charged) == ("provider_auth", "no")
    assert f"{name.upper()}_KEY_SETTING" in failure.error["message"]
    assert "bad-key" not in everything(failure)


def test_a_compatible_server_gets_no_key_that_is_not_its_own(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a key of its own a server is called without any: OpenAI's, which the SDK would take, stays at home."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    failure = failed(ask(settings_of("openai-compatible", simulator.url, key=None), llm_call("openai-compatible")))
    assert failure.error["provider_status"] == 401
    assert "didn't provide an API key" in failure.error["message"]
    assert len(simulator.calls()) == 1


@every_provider
@pytest.mark.parametrize(
    "planted",
    [KEY, "0f0f-no-form-at-all-0f0f", "Bearer abcdef.ghijkl", "AIzaSyPlanted0123456789", "x-api-key: planted-01234"],
)
def test_keys_in_what_a_provider_says_are_hidden(simulator: Simulator, name: str, planted: str) -> None:
    """A key that an error body repeats stands in no message, no exception and no traceback."""
    key = planted if " " not in planted else KEY
    # The simulator repeats the names of unknown directives in its error.
    failure = failed(ask(settings_of(name, simulator.url, key=key), llm_call(name, directive={planted: 1})))
    assert failure.error["provider_status"] == 400
    assert "[secret]" in failure.error["message"]
    for secret in (planted, planted.split()[-1], key):
        assert secret not in everything(failure)
    assert failure.__context__ is None
    assert failure.__cause__ is None


def everything(failure: ProviderError) -> str:
    """All that a log could show of a failure."""
    return "".join(traceback.format_exception(failure)) + repr(failure) + repr(failure.args) + repr(failure.error)


@pytest.mark.parametrize("path", PAYLOADS, ids=lambda path: path.stem)
def test_documented_payloads_are_counted(path: Path) -> None:
    """Answers as the providers document them give the tokens that their pages say, class by class."""
    payload = orjson.loads(path.read_bytes())
    assert payload["source"].startswith("https://")
    api = APIS[payload["provider"]]
    assert api.usage_of(payload["body"]) == payload["tokens"]
    reply = api.translate_response(payload["body"])
    assert reply.tokens == payload["tokens"]
    usage = payload["body"].get("usage", payload["body"].get("usageMetadata"))
    assert (None if reply.provider_usage is None else orjson.loads(reply.provider_usage)) == usage


ECHO = ProviderSettings("echo", None, None, "")


def echo_call(model: str, prompt: str = "one two three") -> LlmCall:
    """A call of the echo."""
    return call(prompt=prompt, model=f"echo/{model}")


@pytest.mark.parametrize("model", ["echo", "slow-20ms"])
def test_the_echo_answers_with_what_was_said(model: str) -> None:
    """The answer is the prompt, its words are its tokens."""
    reply = ask(ECHO, echo_call(model))
    assert isinstance(reply, Reply)
    assert reply.output[0]["text"] == "one two three"
    assert (reply.tokens["input_uncached"], reply.tokens["output_text"], reply.tokens["cache_read"]) == (3, 3, None)


def test_the_echo_keeps_to_the_bound() -> None:
    """An answer of more words than asked for is cut."""
    reply = ask(ECHO, echo_call("echo") | {"max_output_tokens": 2})
    assert isinstance(reply, Reply)
    assert (reply.output[0]["text"], reply.finish_reason) == ("one two", "length")


@pytest.mark.parametrize(
    ("model", "code", "charged"),
    [
        ("fail-503", "provider_unavailable", "no"), ("fail-429", "provider_rate_limited", "no"),
        ("fail-401", "provider_auth", "no"), ("timeout", "provider_timeout", "maybe"),
        ("slow-60000ms", "provider_timeout", "maybe"), ("disconnect", "provider_connection", "maybe"),
        ("garbage", "provider_bad_answer", "maybe"), ("refuse", "provider_content_refused", "maybe"),
    ],
)  # fmt: skip
def test_the_echo_fails_as_its_model_says(model: str, code: str, charged: str) -> None:
    """Each failure a provider can have is there without a network."""
    failure = failed(ask(ECHO, echo_call(model), 0.05))
    assert (failure.error["code"], failure.charged) == (code, charged)
