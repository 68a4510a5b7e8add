"""The provider simulator, as a process of its own, behind the providers' real SDKs and behind a plain socket."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from decimal import Decimal
from email.utils import parsedate_to_datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import anthropic
import httpx2
import openai
import pytest
from google import genai
from google.genai import errors as google_errors
from google.genai import types

from local.processes import Child, wait_until

PROVIDERS = ("openai", "anthropic", "google")
MODEL = {"openai": "gpt-5-mini", "anthropic": "claude-haiku-4-5", "google": "gemini-2.5-flash"}
REFUSALS = (openai.APIStatusError, anthropic.APIStatusError, google_errors.APIError)
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "degrees": {"type": "integer", "minimum": 5}},
    "required": ["city", "degrees"],
    "additionalProperties": False,
}
EXPECTED = {"city": "lorem", "degrees": 5}
#: Anthropic's API takes no bounds of numbers.
UNBOUNDED = {**SCHEMA, "properties": {"city": {"type": "string"}, "degrees": {"type": "integer"}}}
T = TypeVar("T")
every_provider = pytest.mark.parametrize("name", PROVIDERS)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a simulator process that answers at once."""
    log = tmp_path_factory.mktemp("simulator") / "simulator.log"
    command = [sys.executable, "-m", "local.simulator", "--port", "0", "--latency-ms", "0"]
    child = Child(command, log_path=log, name="the simulator", cwd=Path(__file__).parents[2])
    try:
        wait_until(lambda: "http://" in log.read_text(), 20, "the simulator's address", child)
        yield log.read_text().split()[-1]
        assert child.running, log.read_text()
    finally:
        child.stop(5)
    assert "Traceback" not in log.read_text()


class Simulator:
    """A running simulator and its account."""

    def __init__(self, url: str) -> None:
        self.url = url

    def request(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON of one of its own endpoints."""
        data = None if body is None else json.dumps(body).encode()
        with urlopen(Request(f"{self.url}{path}", data, method=method), timeout=10) as answer:
            return json.load(answer)

    def ledger(self) -> dict[str, Any]:
        """The totals, once no call is under way."""
        wait_until(lambda: self.in_flight() == 0, 10, "the simulator's calls to end")
        return cast(dict[str, Any], self.request("GET", "/_sim/ledger"))

    def in_flight(self) -> int:
        """The calls under way."""
        return int(self.request("GET", "/_sim/ledger")["overall"]["in_flight"])

    def calls(self) -> list[dict[str, Any]]:
        """The records of all calls, once none is under way."""
        self.ledger()
        return cast(list[dict[str, Any]], self.request("GET", "/_sim/calls"))

    def outcomes(self) -> list[tuple[str, int | None]]:
        """Outcome and status of every call."""
        return [(call["outcome"], call["status"]) for call in self.calls()]


@pytest.fixture
def simulator(url: str) -> Iterator[Simulator]:
    """The simulator with an empty account and no faults held."""
    made = Simulator(url)
    made.request("POST", "/_sim/reset")
    yield made
    made.request("DELETE", "/_sim/faults")


class Sdks:
    """The three SDKs with one interface: ask for a text, with their own options."""

    def __init__(self, url: str, key: str) -> None:
        self._url, self._key = url, key

    @cached_property
    def openai(self) -> openai.AsyncOpenAI:
        """OpenAI's own."""
        return openai.AsyncOpenAI(base_url=f"{self._url}/openai/v1", api_key=self._key, max_retries=0)

    @cached_property
    def anthropic(self) -> anthropic.AsyncAnthropic:
        """Anthropic's own."""
        return anthropic.AsyncAnthropic(base_url=f"{self._url}/anthropic", api_key=self._key, max_retries=0)

    @cached_property
    def google(self) -> genai.Client:
        """Google's own, which repeats broken requests unless it is told to make one attempt."""
        once = types.HttpRetryOptions(attempts=1)
        options = types.HttpOptions(base_url=f"{self._url}/google", retry_options=once)
        return genai.Client(api_key=self._key, vertexai=False, http_options=options)

    async def ask(self, name: str, text: str, model: str | None = None, most: int = 500) -> Any:
        """The provider's answer to one user message, as its SDK returns it."""
        model = model or MODEL[name]
        match name:
            case "openai":
                return await self.openai.chat.completions.create(
                    model=model, messages=[{"role": "user", "content": text}], max_completion_tokens=most,
                    extra_headers={"X-Client-Request-Id": "attempt-1"},
                )  # fmt: skip
            case "anthropic":
                return await self.anthropic.messages.create(
                    model=model, messages=[{"role": "user", "content": text}], max_tokens=most,
                    extra_headers={"X-Client-Request-Id": "attempt-1"},
                )  # fmt: skip
            case _:
                sent = types.HttpOptions(headers={"X-Client-Request-Id": "attempt-1"})
                config = types.GenerateContentConfig(max_output_tokens=most, http_options=sent)
                return await self.google.aio.models.generate_content(model=model, contents=text, config=config)

    async def close(self) -> None:
        """Close all connections."""
        made = self.__dict__
        if "openai" in made:
            await self.openai.close()
        if "anthropic" in made:
            await self.anthropic.close()
        if "google" in made:
            await self.google.aio.aclose()
            self.google.close()


def run(simulator: Simulator, use: Callable[[Sdks], Awaitable[T]], key: str = "any-key") -> T:
    """What `use` returns, given SDKs that speak to the simulator."""

    async def main() -> T:
        sdks = Sdks(simulator.url, key)
        try:
            return await use(sdks)
        finally:
            await sdks.close()

    return asyncio.run(main())


def ask(simulator: Simulator, name: str, text: str, key: str = "any-key", **options: Any) -> Any:
    """One answer of one provider."""
    return run(simulator, lambda sdks: sdks.ask(name, text, **options), key)


def refusals(simulator: Simulator, name: str, *prompts: str, key: str = "any-key") -> list[Any]:
    """The errors that the provider's SDK raises, one for each prompt."""

    async def all_of(sdks: Sdks) -> list[Any]:
        raised = []
        for prompt in prompts:
            with pytest.raises(REFUSALS) as caught:
                await sdks.ask(name, prompt)
            raised.append(caught.value)
        return raised

    return run(simulator, all_of, key)


def status_of(error: Any) -> int:
    """The HTTP status of an SDK's error."""
    return int(error.code if isinstance(error, google_errors.APIError) else error.status_code)


def body_of(error: Any) -> dict[str, Any]:
    """The whole JSON of an SDK's error."""
    if isinstance(error, google_errors.APIError):
        return cast(dict[str, Any], error.details)
    return cast(dict[str, Any], error.response.json())


def directive(**keys: Any) -> str:
    """A prompt with these directive keys."""
    return f"Why is the sky blue? [[sim {json.dumps(keys)}]]"


def text_of(answer: Any) -> Any:
    """The text of an SDK's answer."""
    if isinstance(answer, types.GenerateContentResponse):
        return answer.text
    return answer.choices[0].message.content if hasattr(answer, "choices") else answer.content[0].text


@every_provider
def test_an_answer_is_the_same_for_the_same_prompt(simulator: Simulator, name: str) -> None:
    """The same prompt gives the same text and other prompts another, while every answer has an id of its own."""

    async def thrice(sdks: Sdks) -> list[Any]:
        return [await sdks.ask(name, prompt) for prompt in ("one prompt", "one prompt", "another prompt")]

    first, again, other = run(simulator, thrice)
    assert text_of(first) == text_of(again) != text_of(other)
    assert (first.response_id if name == "google" else first.id) != (
        again.response_id if name == "google" else again.id
    )
    assert [call["outcome"] for call in simulator.calls()] == ["answered"] * 3


@every_provider
def test_directives_are_no_part_of_the_prompt(simulator: Simulator, name: str) -> None:
    """A directive changes neither the answer to a prompt nor its tokens, and an exact text is answered exactly."""

    async def both(sdks: Sdks) -> list[Any]:
        prompts = ("Why is the sky blue?", directive(latency_ms=1), directive(text="[[Rayleigh]] \u2603"))
        return [await sdks.ask(name, prompt) for prompt in prompts]

    plain, directed, exact = run(simulator, both)
    assert text_of(plain) == text_of(directed)
    assert text_of(exact) == "[[Rayleigh]] \u2603"
    first, second, third = (call["tokens"] for call in simulator.calls())
    assert first == second
    assert (first["input_uncached"], third["output_text"]) == (5, 4)


def test_openai_usage_includes_what_it_details(simulator: Simulator) -> None:
    """OpenAI's prompt tokens include cached, written and audio ones, its completion tokens reasoning and audio."""
    usage = {
        "input": 100,
        "cached": 50,
        "cache_write_5m": 25,
        "input_audio": 12,
        "output": 40,
        "reasoning": 30,
        "output_audio": 8,
    }
    used = ask(simulator, "openai", directive(usage=usage)).usage
    assert (used.prompt_tokens, used.completion_tokens, used.total_tokens) == (187, 78, 265)
    read, made = used.prompt_tokens_details, used.completion_tokens_details
    assert (read.cached_tokens, read.audio_tokens, read.cache_write_tokens) == (50, 12, 25)
    assert (made.reasoning_tokens, made.audio_tokens) == (30, 8)
    assert sum(simulator.ledger()["overall"]["tokens"].values()) == 265


def test_anthropic_usage_excludes_the_cache(simulator: Simulator) -> None:
    """Anthropic's input tokens are those neither read from nor written to the cache; output includes thinking."""
    usage = {"input": 100, "cached": 50, "cache_write_5m": 25, "cache_write_1h": 75, "output": 40, "reasoning": 30}
    used = ask(simulator, "anthropic", directive(usage=usage)).usage
    assert (used.input_tokens, used.output_tokens, used.cache_read_input_tokens) == (100, 70, 50)
    assert (used.cache_creation_input_tokens, used.output_tokens_details.thinking_tokens) == (100, 30)
    assert used.cache_creation.ephemeral_5m_input_tokens == 25
    assert used.cache_creation.ephemeral_1h_input_tokens == 75


def test_gemini_usage_excludes_thoughts(simulator: Simulator) -> None:
    """Gemini's prompt includes cache and audio, told apart by modality; its candidates exclude thoughts."""
    usage = {"input": 100, "cached": 50, "input_audio": 12, "output": 40, "reasoning": 30, "output_audio": 8}
    used = ask(simulator, "google", directive(usage=usage)).usage_metadata
    assert (used.prompt_token_count, used.cached_content_token_count, used.total_token_count) == (162, 50, 240)
    assert (used.candidates_token_count, used.thoughts_token_count) == (48, 30)
    modalities = {detail.modality.value: detail.token_count for detail in used.prompt_tokens_details}
    assert modalities == {"TEXT": 150, "AUDIO": 12}


@every_provider
def test_the_bound_on_the_answer_holds(simulator: Simulator, name: str) -> None:
    """No answer has more tokens than asked for, and one that was cut says so."""
    answer = ask(simulator, name, "Tell me everything.", most=7)
    finish = {
        "openai": lambda: answer.choices[0].finish_reason,
        "anthropic": lambda: answer.stop_reason,
        "google": lambda: answer.candidates[0].finish_reason.value,
    }[name]()
    assert finish == {"openai": "length", "anthropic": "max_tokens", "google": "MAX_TOKENS"}[name]
    assert len(text_of(answer)) == 28
    assert simulator.calls()[0]["tokens"]["output_text"] == 7


def test_tools_are_called_until_they_have_a_result(simulator: Simulator) -> None:
    """A model that is offered a tool calls it with arguments of its schema, and answers once it has the result."""
    tool = {"name": "weather", "description": "The weather."}
    asked: dict[str, Any] = {"role": "user", "content": "The weather?"}

    async def all_three(sdks: Sdks) -> None:
        functions: Any = [{"type": "function", "function": tool | {"parameters": SCHEMA}}]
        chat = await sdks.openai.chat.completions.create(
            model="gpt-5-mini", messages=cast(Any, [asked]), tools=functions
        )
        message = chat.choices[0].message
        [call] = cast(Any, message.tool_calls)
        assert (chat.choices[0].finish_reason, call.function.name, message.content) == ("tool_calls", "weather", None)
        assert json.loads(call.function.arguments) == EXPECTED
        result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
        chat = await sdks.openai.chat.completions.create(
            model="gpt-5-mini", messages=cast(Any, [asked, message.to_dict(), result]), tools=functions
        )
        assert chat.choices[0].finish_reason == "stop"

        response = await sdks.openai.responses.create(
            model="gpt-5-mini",
            input="The weather?",
            tools=cast(Any, [tool | {"type": "function", "parameters": SCHEMA}]),
        )
        assert json.loads(cast(Any, response.output[0]).arguments) == EXPECTED

        claude = await sdks.anthropic.messages.create(
            model="claude-haiku-4-5", max_tokens=99, messages=cast(Any, [asked]),
            tools=cast(Any, [tool | {"input_schema": SCHEMA}]),
        )  # fmt: skip
        assert (claude.stop_reason, cast(Any, claude.content[0]).input) == ("tool_use", EXPECTED)

        declared = types.FunctionDeclaration(**cast(Any, tool), parameters_json_schema=SCHEMA)
        config = types.GenerateContentConfig(tools=[types.Tool(function_declarations=[declared])])
        gemini = await sdks.google.aio.models.generate_content(model="gemini-2.5-flash", contents="?", config=config)
        [function] = cast(Any, gemini.function_calls)
        assert (function.name, function.args) == ("weather", EXPECTED)

    run(simulator, all_three)


def test_structured_answers_follow_their_schema(simulator: Simulator) -> None:
    """A JSON schema is answered with JSON that it allows, in every API's own way of asking."""
    shape = {"name": "answer", "schema": SCHEMA, "strict": True}

    async def all_four(sdks: Sdks) -> list[str]:
        chat = await sdks.openai.chat.completions.create(
            model="gpt-5-mini", messages=[{"role": "user", "content": "?"}],
            response_format=cast(Any, {"type": "json_schema", "json_schema": shape}),
        )  # fmt: skip
        response = await sdks.openai.responses.create(
            model="gpt-5-mini", input="?", text=cast(Any, {"format": {"type": "json_schema", **shape}})
        )
        claude = await sdks.anthropic.messages.create(
            model="claude-haiku-4-5", max_tokens=99, messages=[{"role": "user", "content": "?"}],
            output_config=cast(Any, {"format": {"type": "json_schema", "schema": UNBOUNDED}}),
        )  # fmt: skip
        config = types.GenerateContentConfig(response_mime_type="application/json", response_json_schema=SCHEMA)
        gemini = await sdks.google.aio.models.generate_content(model="gemini-2.5-flash", contents="?", config=config)
        return [text_of(chat), response.output_text, text_of(claude), text_of(gemini)]

    answers = [json.loads(text) for text in run(simulator, all_four)]
    assert answers == [EXPECTED, EXPECTED, {**EXPECTED, "degrees": 1}, EXPECTED]


def test_the_models_are_listed(simulator: Simulator) -> None:
    """Each SDK reads the provider's list of models, which is no call in the account."""

    async def names(sdks: Sdks) -> list[set[str]]:
        return [
            {model.id async for model in sdks.openai.models.list()},
            {model.id async for model in sdks.anthropic.models.list()},
            {str(model.name) async for model in await sdks.google.aio.models.list()},
        ]

    listed = run(simulator, names)
    assert "gpt-5-mini" in listed[0]
    assert "claude-haiku-4-5-20251001" in listed[1]
    assert "models/gemini-2.5-flash" in listed[2]
    assert simulator.calls() == []


@every_provider
def test_a_bad_or_missing_key_is_refused(simulator: Simulator, name: str) -> None:
    """No key and the bad key get a 401 in the provider's form, which is an error in the account and free."""
    [error] = refusals(simulator, name, "hello", key="bad-key")
    path = {"openai": "/openai/v1/chat/completions", "anthropic": "/anthropic/v1/messages"}
    with pytest.raises(HTTPError) as caught:
        simulator.request("POST", path.get(name, "/google/v1beta/models/gemini-2.5-flash:generateContent"), {})
    missing = json.load(caught.value)
    assert (status_of(error), caught.value.code) == (401, 401)
    for body in (body_of(error), missing):
        match name:
            case "openai":
                assert set(body["error"]) == {"message", "type", "param", "code"}
            case "anthropic":
                assert (body["type"], body["error"]["type"]) == ("error", "authentication_error")
            case _:
                assert (body["error"]["code"], body["error"]["status"]) == (401, "UNAUTHENTICATED")
    assert simulator.outcomes() == [("error", 401)] * 2
    assert simulator.ledger()["overall"]["cost_nano_usd"] == 0


@every_provider
def test_every_status_comes_in_the_providers_form(simulator: Simulator, name: str) -> None:
    """HTTP errors raise the SDK's own errors, with the provider's body and request id."""
    kinds = {
        "openai": {400: "invalid_request_error", 429: "requests", 500: "server_error", 503: "server_error"},
        "anthropic": {400: "invalid_request_error", 429: "rate_limit_error", 500: "api_error", 529: "overloaded_error"},
        "google": {400: "INVALID_ARGUMENT", 429: "RESOURCE_EXHAUSTED", 500: "INTERNAL", 503: "UNAVAILABLE"},
    }[name]
    raised = refusals(simulator, name, *(directive(status=status) for status in kinds))
    for (status, kind), error in zip(kinds.items(), raised, strict=True):
        body = body_of(error)
        assert status_of(error) == status
        assert body["error"]["status" if name == "google" else "type"] == kind
        if name == "openai":
            assert error.request_id.startswith("req_")
        if name == "anthropic":
            assert body["request_id"] == error.response.headers["request-id"]
    assert simulator.outcomes() == [("error", status) for status in kinds]


@every_provider
def test_a_wait_is_asked_for_in_three_forms(simulator: Simulator, name: str) -> None:
    """Seconds, milliseconds and an HTTP date reach the client as headers, on a 429 unless another status is given."""
    asked = (
        {"retry_after": 7},
        {"retry_after_ms": 250},
        {"retry_after_date": 600},
        {"status": 429},
        {"retry_after": None},
    )
    raised = refusals(simulator, name, *(directive(**keys) for keys in asked))
    headers = [error.response.headers for error in raised]
    assert (headers[0]["retry-after"], headers[1]["retry-after-ms"], headers[3]["retry-after"]) == ("7", "250", "1")
    assert 0 < parsedate_to_datetime(headers[2]["retry-after"]).timestamp() - time.time() <= 601
    assert "retry-after" not in headers[4]
    assert simulator.outcomes() == [("error", 429)] * 5


def test_gemini_says_the_wait_in_its_body_too(simulator: Simulator) -> None:
    """Google's 429 carries a RetryInfo, which is where its clients look."""
    details = body_of(refusals(simulator, "google", directive(retry_after=3))[0])["error"]["details"]
    assert {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "3s"} in details


@every_provider
def test_a_fault_can_end_after_some_calls(simulator: Simulator, name: str) -> None:
    """`times` spoils the first calls with the same key, or the same prompt, and no later ones."""
    for key in ({"key": f"{name}-times"}, {}):
        prompt = directive(status=500, times=2, **key)
        assert [status_of(error) for error in refusals(simulator, name, prompt, prompt)] == [500, 500]
        assert text_of(ask(simulator, name, prompt))
    assert [outcome for outcome, _ in simulator.outcomes()] == ["error", "error", "answered"] * 2


@every_provider
def test_broken_answers(simulator: Simulator, name: str) -> None:
    """Garbage, truncated bodies and resets reach the SDK as failures, count as garbled or cut off, and are free."""
    for fault in ("garbage", "truncated", "reset"):
        with pytest.raises(Exception) as caught:  # noqa: PT011
            ask(simulator, name, directive(fault=fault))
        assert not isinstance(caught.value, REFUSALS)
    assert simulator.outcomes() == [("garbled", 200), ("garbled", 200), ("cut_off", None)]
    assert simulator.ledger()["overall"]["cost_nano_usd"] == 0


def test_answers_with_nothing_in_them(simulator: Simulator) -> None:
    """An empty answer and an error object with status 200 parse, hold no answer, and count as garbled."""

    async def all_three(sdks: Sdks) -> None:
        empty, error = directive(fault="empty_choices"), directive(fault="error_in_200")
        assert (await sdks.ask("openai", empty)).choices == []
        assert (await sdks.ask("openai", error)).error["type"] == "server_error"
        assert (await sdks.ask("anthropic", empty)).content == []
        assert (await sdks.ask("anthropic", error)).error["type"] == "api_error"
        assert (await sdks.ask("google", empty)).candidates is None
        assert (await sdks.ask("google", error)).candidates is None

    run(simulator, all_three)
    assert simulator.outcomes() == [("garbled", 200)] * 6


def test_refusals_are_paid_for(simulator: Simulator) -> None:
    """A refused prompt is an answer in each provider's own words, with usage and a price."""

    async def all_three(sdks: Sdks) -> None:
        prompt = directive(fault="refusal")
        choice = (await sdks.ask("openai", prompt)).choices[0]
        assert (choice.finish_reason, choice.message.content) == ("content_filter", None)
        message = await sdks.ask("anthropic", prompt)
        assert (message.stop_reason, message.stop_details.type, message.content) == ("refusal", "refusal", [])
        candidate = (await sdks.ask("google", prompt)).candidates[0]
        assert (candidate.finish_reason.value, candidate.content) == ("SAFETY", None)

    run(simulator, all_three)
    assert all(call["outcome"] == "answered" and call["cost_nano_usd"] > 0 for call in simulator.calls())


def test_usage_can_be_left_out(simulator: Simulator) -> None:
    """`missing_usage` takes the usage out of the answer and leaves the account as it is."""

    async def all_three(sdks: Sdks) -> list[Any]:
        prompt = directive(missing_usage=True)
        chat, message, gemini = [await sdks.ask(name, prompt) for name in PROVIDERS]
        return [chat.usage, getattr(message, "usage", None), gemini.usage_metadata]

    assert run(simulator, all_three) == [None, None, None]
    assert all(call["cost_nano_usd"] > 0 for call in simulator.calls())


@every_provider
def test_clients_that_leave_are_seen(simulator: Simulator, name: str) -> None:
    """A client that goes away from a hanging or a slow call makes it cut off, without a status or a cost."""

    async def leave(sdks: Sdks) -> None:
        prompts = (directive(fault="hang"), directive(latency_ms=60_000))
        tasks = [asyncio.create_task(sdks.ask(name, prompt)) for prompt in prompts]
        for _ in range(1_000):
            if await asyncio.to_thread(simulator.in_flight) == 2:
                break
            await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    run(simulator, leave)
    assert simulator.outcomes() == [("cut_off", None)] * 2
    totals = simulator.ledger()["providers"][name]
    assert (totals["in_flight"], totals["max_in_flight"], totals["cost_nano_usd"]) == (0, 2, 0)


def test_a_killed_client_is_seen(simulator: Simulator, tmp_path: Path) -> None:
    """The calls of a process that was killed are cut off, because the kernel closes its sockets."""
    program = """if True:
        import json, sys, urllib.request as u
        body = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "[[sim {\\"fault\\": \\"hang\\"}]]"}]}
        u.urlopen(u.Request(sys.argv[1], json.dumps(body).encode(), {"Authorization": "Bearer k"}))
    """
    child = Child(
        [sys.executable, "-c", program, f"{simulator.url}/openai/v1/chat/completions"],
        log_path=tmp_path / "log",
        name="a client",
    )
    try:
        wait_until(lambda: simulator.in_flight() == 1, 10, "the call", child)
    finally:
        child.kill()
    assert simulator.outcomes() == [("cut_off", None)]


@every_provider
def test_a_fault_can_be_held_for_a_provider(simulator: Simulator, name: str) -> None:
    """A fault for a whole provider spoils its calls, whatever they ask, and no others', until it is taken back."""
    simulator.request("POST", "/_sim/faults", {"provider": name, "status": 503})

    async def each(sdks: Sdks) -> list[int]:
        prompt = directive(fault="refusal")
        results = await asyncio.gather(*(sdks.ask(n, prompt) for n in PROVIDERS), return_exceptions=True)
        return [status_of(r) if isinstance(r, REFUSALS) else 200 for r in results]

    assert run(simulator, each) == [503 if n == name else 200 for n in PROVIDERS]
    simulator.request("DELETE", "/_sim/faults")
    assert run(simulator, each) == [200, 200, 200]


PRICED = [
    # Prices in USD per million tokens, as the providers publish them.
    ("openai", "gpt-5-mini", {"input": 1_001, "cached": 333, "output": 77, "reasoning": 5},
     1_001 * 250 + 333 * 25 + (77 + 5) * 2_000),
    ("anthropic", "claude-haiku-4-5", {"input": 10, "cached": 20, "cache_write_5m": 30, "cache_write_1h": 40, "output": 50},
     10 * 1_000 + 20 * 100 + 30 * 1_250 + 40 * 2_000 + 50 * 5_000),
    ("google", "gemini-2.5-flash", {"input": 10, "cached": 20, "input_audio": 30, "output": 40, "reasoning": 50},
     10 * 300 + 20 * 30 + 30 * 1_000 + (40 + 50) * 2_500),
    ("openai", "gpt-realtime", {"input": 10, "input_audio": 20, "output": 30, "output_audio": 40},
     10 * 4_000 + 20 * 32_000 + 30 * 16_000 + 40 * 64_000),
    ("google", "gemini-2.5-pro", {"input": 200_000, "output": 10}, 200_000 * 1_250 + 10 * 10_000),
    ("google", "gemini-2.5-pro", {"input": 200_000, "cached": 1, "output": 10}, 200_000 * 2_500 + 250 + 10 * 15_000),
]  # fmt: skip


@pytest.mark.parametrize(("name", "model", "usage", "cost"), PRICED)
def test_the_cost_is_exact(simulator: Simulator, name: str, model: str, usage: dict[str, int], cost: int) -> None:
    """Every class costs its own price, or the one that it falls back to, and a long prompt its tier's."""
    ask(simulator, name, directive(usage=usage), model=model)
    assert [call["cost_nano_usd"] for call in simulator.calls()] == [cost]


def test_half_a_nano_dollar_goes_to_the_even_side(simulator: Simulator) -> None:
    """Each class is rounded for itself, half to even."""
    # A price of four decimals, 0.0375 USD per million tokens, makes halves.
    for tokens in (1, 3):
        ask(simulator, "google", directive(usage={"input": tokens, "output": 0}), model="gemini-flash-1.5-8b")
    halves = [int((Decimal("37.5") * tokens).to_integral_value()) for tokens in (1, 3)]
    assert [call["cost_nano_usd"] for call in simulator.calls()] == halves == [38, 112]


def test_an_unknown_model_has_no_price(simulator: Simulator) -> None:
    """Unpriced is null and counted, never zero."""
    ask(simulator, "openai", "hello", model="llama-of-my-own")
    assert simulator.calls()[0]["cost_nano_usd"] is None
    assert simulator.ledger()["overall"]["unpriced_calls"] == 1


def test_the_totals_are_the_sum_of_the_records(simulator: Simulator) -> None:
    """Ledger and records agree, records carry the caller's attempt id, and can be read on from any of them."""

    async def some(sdks: Sdks) -> None:
        calls = [sdks.ask(name, f"{n} {directive(**keys)}") for n in range(5) for name in PROVIDERS
                 for keys in ({}, {"status": 500}, {"fault": "empty_choices"})]  # fmt: skip
        await asyncio.gather(*calls, return_exceptions=True)

    run(simulator, some)
    ledger, calls = simulator.ledger(), simulator.calls()
    overall = ledger["overall"]
    assert overall["calls"] == len(calls) == ledger["last_seq"] == 45
    assert overall["outcomes"] == {"answered": 15, "error": 15, "garbled": 15, "cut_off": 0}
    assert overall["cost_nano_usd"] == sum(call["cost_nano_usd"] for call in calls) > 0
    for name in overall["tokens"]:
        assert overall["tokens"][name] == sum(call["tokens"][name] for call in calls)
    assert sum(totals["calls"] for totals in ledger["providers"].values()) == 45
    assert {call["client_request_id"] for call in calls} == {"attempt-1"}
    assert all(call["received_us"] <= call["finished_us"] for call in calls)
    assert [call["seq"] for call in simulator.request("GET", "/_sim/calls?since=40")] == [41, 42, 43, 44, 45]


def test_a_reset_forgets_everything_but_calls_under_way(simulator: Simulator) -> None:
    """After a reset the account is empty, and a call from before it does not come into it."""
    host, port = simulator.url.removeprefix("http://").split(":")
    body = json.dumps({"model": "gpt-5-mini", "messages": [{"role": "user", "content": directive(fault="hang")}]})
    with socket.create_connection((host, int(port))) as connection:
        head = f"POST /openai/v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer k\r\ncontent-length: {len(body)}"
        connection.sendall(f"{head}\r\n\r\n{body}".encode())
        wait_until(lambda: simulator.in_flight() == 1, 10, "the call")
        simulator.request("POST", "/_sim/reset")
    ask(simulator, "openai", "hello")
    assert simulator.outcomes() == [("answered", 200)]


def test_an_answer_that_nobody_reads_is_cut_off(simulator: Simulator) -> None:
    """An answer too big for the socket's buffer is not answered before its client has read it."""
    host, port = simulator.url.removeprefix("http://").split(":")
    prompt = directive(text="x" * 20_000_000)
    body = json.dumps({"model": "gpt-5-mini", "messages": [{"role": "user", "content": prompt}]})
    head = f"POST /openai/v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer k\r\ncontent-length: {len(body)}"
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(f"{head}\r\n\r\n{body}".encode())
        assert connection.recv(1_000).startswith(b"HTTP/1.1 200 OK")
        assert simulator.in_flight() == 1
    assert simulator.outcomes() == [("cut_off", 200)]
    assert len(text_of(ask(simulator, "openai", prompt))) == 20_000_000
    assert [outcome for outcome, _ in simulator.outcomes()] == ["cut_off", "answered"]


def test_requests_that_are_wrong_are_refused(simulator: Simulator) -> None:
    """Bad JSON, missing fields, unknown directives and inexpressible usage get a 400 that says what is wrong."""
    chat, key = "/openai/v1/chat/completions", {"Authorization": "Bearer k", "X-Goog-Api-Key": "k"}
    claude, version = "/anthropic/v1/messages", {"Anthropic-Version": "2023-06-01"}
    hello: dict[str, Any] = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "hello"}]}
    wrong = {"role": "user", "content": directive(latency=1)}
    audio = {"role": "user", "content": directive(usage={"input_audio": 1})}
    cases: list[tuple[str, Any, str]] = [
        ("/openai/v1/responses", {"model": "gpt-5-mini", "input": "hello", "stream": True}, "stream"),
        (chat, hello | {"messages": [{"role": "user", "content": directive(stream={"cut": 4})}]}, "stream"),
        ("/google/v1beta/models/gemini-2.5-flash:streamGenerateContent", {"contents": [{"parts": []}]}, "alt=sse"),
        ("/google/v1beta/models/gemini-2.5-flash:countTokens", {"contents": [{"parts": []}]}, "countTokens"),
        (chat, {"messages": []}, "model"),
        (chat, hello | {"messages": []}, "messages"),
        (chat, hello | {"n": 2}, "choice"),
        (chat, [1], "form"),
        (
            chat,
            hello | {"response_format": {"type": "json_schema", "json_schema": {"schema": {"properties": 5}}}},
            "schema",
        ),
        (chat, hello | {"messages": [wrong]}, "latency"),
        (chat, hello | {"messages": [{"role": "user", "content": "[[sim {]]"}]}, "directive"),
        (claude, hello, "max_tokens"),
        (claude, hello | {"max_tokens": 9, "messages": [audio]}, "input_audio"),
        ("/google/v1beta/models/gemini-2.5-flash:generateContent", {}, "contents"),
    ]
    for path, body, word in cases:
        answer = httpx2.post(f"{simulator.url}{path}", json=body, headers=key | version)
        assert answer.status_code == 400, (path, body)
        assert word in answer.json()["error"]["message"]
    assert simulator.outcomes() == [("error", 400)] * len(cases)
