"""What every provider behind HTTP does with a stream, through its real SDK, beside the simulator's own account."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from agents.providers.base import Provider
from config.prices import price_on
from core.errors import ProviderError
from core.facts import Attempt, usage
from core.reply import Reply
from schemas.events import LlmCall, LlmUsage
from tests.contract.test_providers import (
    ATTEMPT,
    FAULTS,
    Simulator,
    ask,
    every_provider,
    failed,
    llm_call,
    run,
    server,
    settings_of,
    simulator,
    until,
)
from tests.examples import NOON

__all__ = ["server", "simulator"]

SIXTY = " ".join(f"word{number:02}" for number in range(60))
TOOL = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
TOOLS: dict[str, Any] = {
    "openai": [{"type": "function", "function": {"name": "forecast", "parameters": TOOL}}],
    "anthropic": [{"name": "forecast", "input_schema": TOOL}],
    "google": [{"functionDeclarations": [{"name": "forecast", "parametersJsonSchema": TOOL}]}],
}
#: What of a cut call is known: nothing where usage comes last, what was read where that is told first, or all so far.
READ_BY_THEN = {"openai": None, "openai-compatible": None, "anthropic": (10, None), "google": (10, 40)}


class Heard:
    """A listener that writes down what it hears."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.given_up: list[Reply | None] = []

    def delta(self, text: str) -> None:
        """One more piece."""
        self.pieces.append(text)

    def gave_up(self, used: Reply | None) -> None:
        """The end of a cancelled call."""
        self.given_up.append(used)


def sixty(name: str, **stream: Any) -> LlmCall:
    """A call whose answer has 60 tokens in 60 pieces after 10 that are read."""
    return llm_call(name, directive={"text": SIXTY, "usage": {"input": 10, "output": 60}, "stream": stream})


def streamed(
    simulator: Simulator, name: str, asked: LlmCall, timeout: float = 20, stall: float = 5
) -> tuple[Reply | ProviderError, Heard]:
    """What one streamed call ends with, and what was heard of it."""
    heard = Heard()

    async def once(made: Provider) -> Reply | ProviderError:
        try:
            return await made.call(asked, ATTEMPT, timeout, None, heard)
        except ProviderError as why:
            return why

    return run(replace(settings_of(name, simulator.url), stream_stall_seconds=stall), once), heard


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


@pytest.mark.parametrize("name", TOOLS)
def test_a_streamed_tool_call_is_the_whole_one(simulator: Simulator, name: str) -> None:
    """The arguments of a tool's call come in pieces without text, and are whole JSON in the end."""
    asked = llm_call(name)
    asked["request"]["provider_options"] = {"tools": json.dumps(TOOLS[name])}
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
