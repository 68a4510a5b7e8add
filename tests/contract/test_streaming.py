"""What every provider behind HTTP does with a stream, through its real SDK, beside the simulator's own account."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import psutil
import pytest

from agents.providers import provider
from agents.providers.base import Provider
from config.prices import price_on
from config.settings import Key
from core.errors import ProviderError
from core.facts import Attempt, usage
from core.reply import Reply
from schemas.events import LlmCall, LlmUsage, Tool
from tests.contract.calling import (
    ATTEMPT,
    Heard,
    ask,
    every_provider,
    everything,
    failed,
    llm_call,
    run,
    settings_of,
    until,
)
from tests.contract.simulator import Simulator
from tests.contract.test_call_keys import CARRIERS, OWN, Repeating
from tests.contract.test_call_keys import server as repeating
from tests.contract.test_provider_failures import FAULTS
from tests.examples import NOON

__all__ = ["repeating"]

SIXTY = " ".join(f"word{number:02}" for number in range(60))
FORECAST = Tool(
    name="forecast",
    description=None,
    parameters='{"type":"object","properties":{"city":{"type":"string"},"days":{"type":"integer"}}}',
)
#: What of a cut call is known: nothing where usage comes last, what was read where that is told first, or all so far.
READ_BY_THEN = {"openai": None, "openai-compatible": None, "anthropic": (10, None), "google": (10, 40)}


def sixty(name: str, **stream: Any) -> LlmCall:
    """A call whose answer has 60 tokens in 60 pieces after 10 that are read."""
    return llm_call(name, directive={"text": SIXTY, "usage": {"input": 10, "output": 60}, "stream": stream})


def streamed(
    simulator: Simulator, name: str, asked: LlmCall, timeout: float = 20, stall: float = 5
) -> tuple[Reply | ProviderError, Heard]:
    """What one streamed call ends with, and what was heard of it."""
    heard = Heard()
    settings = replace(settings_of(name, simulator.url), stream_stall_seconds=stall)
    return ask(settings, asked, timeout, heard), heard


def fact(asked: LlmCall, result: Reply | ProviderError) -> LlmUsage:
    """The usage event of a call with this result."""
    price = price_on(asked["provider"], asked["model"], NOON // 86_400_000_000)
    return usage(asked, Attempt(ATTEMPT, 1, "first", NOON), result, NOON + 1_000_000, price)


def accounted(simulator: Simulator, asked: LlmCall, result: Reply | ProviderError) -> dict[str, Any]:
    """The one call in the simulator's account, whose tokens and cost the usage event has where it has any."""
    [seen] = simulator.calls()
    told = fact(asked, result)
    if told["cost_nano_usd"] is not None:
        assert {name: count or 0 for name, count in told["tokens"].items()} == seen["tokens"]
        if asked["provider"] != "openai-compatible":
            assert told["cost_nano_usd"] == seen["cost_nano_usd"]
    return seen


@every_provider
def test_a_streamed_answer_is_the_whole_one(simulator: Simulator, name: str) -> None:
    """A stream ends with the reply that a call without one ends with, and its pieces are the reply's text."""
    asked = llm_call(name)
    whole = ask(settings_of(name, simulator.url), asked)
    result, heard = streamed(simulator, name, asked)
    assert isinstance(whole, Reply)
    assert isinstance(result, Reply)
    assert replace(result, provider_response_id=None) == replace(whole, provider_response_id=None)
    assert "".join(heard.pieces) == whole.output[0]["text"]
    assert len(heard.pieces) > 10
    first, second = simulator.calls()
    assert first["tokens"] == second["tokens"] == {k: v or 0 for k, v in result.tokens.items()}
    assert second["outcome"] == "answered"
    assert second["client_request_id"] == ATTEMPT


@every_provider
def test_a_streamed_tool_call_is_the_whole_one(simulator: Simulator, name: str) -> None:
    """The arguments of a tool's call come in pieces without text, and are whole JSON in the end."""
    asked = llm_call(name)
    asked["request"]["tools"] = [FORECAST]
    result, heard = streamed(simulator, name, asked)
    assert isinstance(result, Reply)
    [part] = result.output
    assert (part["type"], part["tool_name"], result.finish_reason) == ("tool_call", "forecast", "tool_calls")
    assert json.loads(part["tool_arguments"] or "").keys() == {"city", "days"}
    assert set(heard.pieces) == {""}
    assert accounted(simulator, asked, result)["outcome"] == "answered"


@every_provider
def test_a_slow_first_token_is_no_stall(simulator: Simulator, name: str) -> None:
    """Before the first piece a stream may be silent for longer than it may be in the middle."""
    asked = sixty(name, first_token_ms=900)
    result, heard = streamed(simulator, name, asked, stall=0.3)
    assert isinstance(result, Reply), result
    assert "".join(heard.pieces) == SIXTY
    assert accounted(simulator, asked, result)["outcome"] == "answered"


@every_provider
@pytest.mark.parametrize(
    ("fault", "code", "outcome"),
    [
        ({"cut_at": 40}, "provider_bad_answer", "cut_off"),
        ({"stall_at": 40, "stall_seconds": 60}, "provider_timeout", "cut_off"),
        ({"stall_at": 40, "stall_seconds": 60, "keep_alive_ms": 100}, "provider_timeout", "cut_off"),
        ({"malformed_at": 40}, "provider_bad_answer", "garbled"),
        ({"error_at": 40}, "provider_unavailable", "error"),
    ],
)
def test_a_stream_that_breaks_is_a_failure_of_unknown_cost(
    simulator: Simulator, name: str, fault: dict[str, Any], code: str, outcome: str
) -> None:
    """40 of 60 tokens are a failure that may be charged: with what the provider told until then, and never at a cost of it."""
    asked = sixty(name, **fault)
    result, heard = streamed(simulator, name, asked, stall=0.7)
    failure = failed(result)
    assert (failure.error["code"], failure.error["retryable"], failure.charged) == (code, True, "maybe")
    assert ("brought nothing for 0.7 seconds" in failure.error["message"]) is ("stall_at" in fault)
    assert heard.pieces == [f"{' ' if number else ''}word{number:02}" for number in range(40)]
    reported = None
    if failure.reply is not None:
        assert failure.reply.output == ()
        assert not failure.reply.counted
        reported = failure.reply.tokens["input_uncached"], failure.reply.tokens["output_text"]
    assert reported == READ_BY_THEN[name]
    told = fact(asked, result)
    assert (told["status"], told["cost_nano_usd"], told["cost_status"]) == ("failed", None, "unknown")
    seen = accounted(simulator, asked, result)
    assert (seen["outcome"], seen["tokens"]["input_uncached"]) == (outcome, 10)
    assert seen["tokens"]["output_text"] == 40 or "malformed_at" in fault
    assert seen["cost_nano_usd"] > 0


@every_provider
def test_a_stream_without_its_end_is_a_failure(simulator: Simulator, name: str) -> None:
    """All words but no mark of the end is a failure; its cost is known where the whole usage was told, and it is the bill's."""
    asked = sixty(name, no_end=True)
    result, heard = streamed(simulator, name, asked)
    failure = failed(result)
    assert (failure.error["code"], failure.charged) == ("provider_bad_answer", "maybe")
    assert "".join(heard.pieces) == SIXTY
    assert failure.reply is not None
    assert failure.reply.tokens["output_text"] == 60
    # Gemini's mark is the finish reason, so a usage before it is one of a stream under way.
    assert failure.reply.counted is (name != "google")
    assert (fact(asked, result)["cost_status"] == "unknown") is (name == "google")
    assert accounted(simulator, asked, result)["outcome"] == "garbled"


@every_provider
@pytest.mark.parametrize(("fault", "code", "charged"), FAULTS)
def test_every_other_fault_has_the_error_that_it_has_without_a_stream(
    simulator: Simulator, name: str, fault: str, code: str, charged: str
) -> None:
    """An answer that is no stream, or none at all, fails as it does where none was asked for."""
    asked = llm_call(name, directive={"fault": fault})
    result, heard = streamed(simulator, name, asked, 1.0 if fault == "hang" else 20)
    failure = failed(result)
    assert (failure.error["code"], failure.charged) == (code, charged)
    assert heard.pieces == []
    assert len(simulator.calls()) == 1


@every_provider
def test_an_http_error_instead_of_a_stream_keeps_its_wait(simulator: Simulator, name: str) -> None:
    """A limit's answer is read as ever: not charged, with its code, its status and how long to wait."""
    result, _ = streamed(simulator, name, llm_call(name, directive={"retry_after": 7}))
    failure = failed(result)
    assert (failure.error["code"], failure.charged) == ("provider_rate_limited", "no")
    assert (failure.error["provider_status"], failure.error["retry_after_ms"]) == (429, 7_000)
    assert failure.reply is None


@every_provider
def test_the_timeout_bounds_a_stream_that_goes_on(simulator: Simulator, name: str) -> None:
    """A stream that never stalls but takes too long ends at the call's own limit."""
    result, heard = streamed(simulator, name, sixty(name, pace_ms=200), timeout=1.0)
    failure = failed(result)
    assert (failure.error["code"], failure.charged) == ("provider_timeout", "maybe")
    assert "1 seconds" in failure.error["message"]
    assert 0 < len(heard.pieces) < 60
    assert [seen["outcome"] for seen in simulator.calls()] == ["cut_off"]


@every_provider
def test_a_cancelled_stream_tells_what_it_used(simulator: Simulator, name: str) -> None:
    """Cancelling closes the connection, so that no more is made, and the listener gets what was told until then."""
    heard = Heard()

    async def cancel(made: Provider) -> bool:
        asked = sixty(name, stall_at=40, stall_seconds=60)
        task = asyncio.create_task(made.call(asked, ATTEMPT, 90, None, heard))
        await until(lambda: len(heard.pieces) == 40)
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    assert run(settings_of(name, simulator.url), cancel)
    [used] = heard.given_up
    assert (None if used is None else (used.tokens["input_uncached"], used.tokens["output_text"])) == READ_BY_THEN[name]
    assert used is None or not used.counted
    assert [(seen["outcome"], seen["tokens"]["output_text"]) for seen in simulator.calls()] == [("cut_off", 40)]


def test_a_key_in_an_error_event_is_hidden(simulator: Simulator) -> None:
    """What a stream says in mid-stream goes the way of every other message: with the key taken out."""
    settings = replace(settings_of("openai", simulator.url), api_key="overloaded")
    heard = Heard()

    async def once(made: Provider) -> ProviderError:
        with pytest.raises(ProviderError) as broke:
            await made.call(sixty("openai", error_at=1), ATTEMPT, 20, None, heard)
        return broke.value

    failure: ProviderError = run(settings, once)
    assert "[secret]" in failure.error["message"]
    assert "overloaded" not in failure.error["message"]
    assert failure.__context__ is None


@every_provider
def test_a_streamed_call_carries_its_own_key(repeating: Repeating, name: str) -> None:
    """A stream is asked for with the key of its call, in the one header for it, and a refusal that repeats it does not tell it."""
    settings = replace(settings_of(name, repeating.url), api_key=OWN)

    async def thrice(made: Provider) -> list[ProviderError]:
        failures = []
        for number in range(3):
            with pytest.raises(ProviderError) as refused:
                await made.call(llm_call(name), ATTEMPT, 20, Key(f"planted-{number}", f"credential c{number}"), Heard())
            failures.append(refused.value)
        return failures

    failures = run(settings, thrice)
    carrier = CARRIERS[name].lower()
    assert [call[carrier].removeprefix("Bearer ") for call in repeating.calls] == [
        "planted-0",
        "planted-1",
        "planted-2",
    ]
    for number, failure in enumerate(failures):
        assert (failure.error["code"], failure.charged) == ("provider_auth", "no")
        assert f"credential c{number}" in failure.error["message"]
        assert f"planted-{number}" not in everything(failure)
    assert OWN not in str(repeating.calls)


@every_provider
def test_streams_share_a_connection(simulator: Simulator, name: str) -> None:
    """A stream that came to its end leaves its connection to the next one; what was broken off does not hang on to any."""
    connections: set[Any] = set()

    async def in_turn(made: Provider) -> None:
        for _ in range(3):
            await made.call(sixty(name), ATTEMPT, 20, None, Heard())
            connections.update(await asyncio.to_thread(open_to, simulator.url))

    run(settings_of(name, simulator.url), in_turn)
    assert len(connections) == 1


def open_to(url: str) -> set[tuple[str, int]]:
    """The local ends of this process's connections to a server."""
    port = int(url.rpartition(":")[2])
    own = psutil.Process().net_connections("tcp")
    return {tuple(one.laddr) for one in own if one.raddr and one.raddr.port == port and one.status == "ESTABLISHED"}


@pytest.mark.parametrize("manner", ["reset", "silence"])
def test_what_comes_after_the_end_does_not_undo_it(manner: str) -> None:
    """An answer whose end mark has come is whole, whether its connection then breaks or just stays open."""
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    chunks = [
        {"id": "c", "choices": [{"index": 0, "delta": {"content": "Hello there"}}]},
        {"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        {"id": "c", "choices": [], "usage": usage},
    ]
    events = "".join(f"data: {data}\n\n" for data in [*map(json.dumps, chunks), "[DONE]"])

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        writer.write(f"{head}{len(events):x}\r\n{events}\r\n".encode())
        await writer.drain()
        if manner == "silence":
            await asyncio.sleep(30)
        writer.transport.abort()

    async def main() -> Reply:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        made = provider(replace(settings_of("openai", url), stream_stall_seconds=0.5))
        try:
            return await made.call(llm_call("openai"), ATTEMPT, 20, None, Heard())
        finally:
            await made.close()
            server.close()

    reply = asyncio.run(main())
    assert reply.output[0]["text"] == "Hello there"
    assert (reply.counted, reply.tokens["output_text"]) == (True, 2)
