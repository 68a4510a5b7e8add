"""The provider simulator's streams behind the providers' real SDKs, and what the account says of them."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import anthropic
import httpx2
import openai
import pytest
from google.genai import errors as google_errors
from google.genai import types

from tests.contract.sdks import MODEL, Sdks, ask, directive, every_provider, run, text_of
from tests.contract.simulator import Simulator

SIXTY = " ".join(f"word{number:02}" for number in range(60))
ERRORS = (
    httpx2.HTTPError, aiohttp.ClientError, openai.APIError, anthropic.APIError, google_errors.APIError, ValueError,
)  # fmt: skip


async def stream(sdks: Sdks, name: str, prompt: str) -> tuple[list[str], Any]:
    """The pieces of a streamed answer as the SDK hands them out, and the last usage that it told."""
    pieces: list[str] = []
    usage: Any = None
    match name:
        case "openai":
            async for chunk in await sdks.openai.chat.completions.create(
                model=MODEL[name], messages=[{"role": "user", "content": prompt}], stream=True,
                stream_options={"include_usage": True},
            ):  # fmt: skip
                pieces += [choice.delta.content for choice in chunk.choices if choice.delta.content]
                usage = chunk.usage or usage
        case "anthropic":
            async for event in await sdks.anthropic.messages.create(
                model=MODEL[name], messages=[{"role": "user", "content": prompt}], max_tokens=500, stream=True
            ):
                if event.type == "content_block_delta" and event.delta.type == "text_delta":
                    pieces.append(event.delta.text)
                elif event.type == "message_delta":
                    usage = event.usage
        case _:
            async for response in await sdks.google.aio.models.generate_content_stream(
                model=MODEL[name], contents=prompt, config=types.GenerateContentConfig()
            ):
                pieces += [response.text] if response.text else []
                usage = response.usage_metadata
    return pieces, usage


def output_of(usage: Any) -> int:
    """The output tokens of an SDK's usage."""
    for field in ("completion_tokens", "output_tokens", "candidates_token_count"):
        if (count := getattr(usage, field, None)) is not None:
            return int(count)
    raise AssertionError(usage)


@every_provider
def test_a_stream_says_what_the_whole_answer_says(simulator: Simulator, name: str) -> None:
    """The pieces of a streamed answer make up the text of the whole one, at the same usage in both accounts."""
    whole = text_of(ask(simulator, name, "Why is the sky blue?"))
    pieces, usage = run(simulator, lambda sdks: stream(sdks, name, "Why is the sky blue?"))
    assert "".join(pieces) == whole
    assert len(pieces) == len(whole.split())
    first, second = simulator.calls()
    assert first["tokens"] == second["tokens"]
    assert first["cost_nano_usd"] == second["cost_nano_usd"] > 0
    assert output_of(usage) == second["tokens"]["output_text"]
    assert simulator.outcomes() == [("answered", 200)] * 2


@every_provider
@pytest.mark.parametrize(
    ("fault", "outcome", "made"),
    [({"cut_at": 40}, "cut_off", 40), ({"error_at": 40}, "error", 40), ({"no_end": True}, "garbled", 60)],
)
def test_a_broken_stream_is_paid_for_as_far_as_it_was_made(
    simulator: Simulator, name: str, fault: dict[str, Any], outcome: str, made: int
) -> None:
    """Of 60 tokens the account has those that were made when the stream broke, and all that were read."""
    prompt = directive(text=SIXTY, usage={"input": 10, "output": 60}, stream=fault)

    async def to_the_end(sdks: Sdks) -> bool:
        try:
            await stream(sdks, name, prompt)
        except ERRORS:
            return True
        return False

    broke = run(simulator, to_the_end)
    assert broke or "no_end" in fault
    [call] = simulator.calls()
    assert (call["outcome"], call["status"]) == (outcome, 200)
    assert (call["tokens"]["input_uncached"], call["tokens"]["output_text"]) == (10, made)
    assert simulator.ledger()["overall"]["cost_nano_usd"] == call["cost_nano_usd"] > 0


@every_provider
def test_a_stream_that_its_client_leaves_is_paid_for_so_far(simulator: Simulator, name: str) -> None:
    """A client that leaves in the middle ends the making, and pays for the pieces made until then only."""
    prompt = directive(text=SIXTY, usage={"output": 60}, stream={"stall_at": 20, "stall_seconds": 60})

    async def leave(sdks: Sdks) -> None:

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await stream(sdks, name, prompt)

    run(simulator, leave)
    [call] = simulator.calls()
    assert (call["outcome"], call["tokens"]["output_text"]) == ("cut_off", 20)


def test_faults_of_streams_hold_for_the_first_calls_only(simulator: Simulator) -> None:
    """With `times` a stream breaks that often and goes well from then on."""
    prompt = directive(text=SIXTY, stream={"cut_at": 3}, times=1)

    async def twice(sdks: Sdks) -> list[str]:
        with pytest.raises(ERRORS):
            await stream(sdks, "openai", prompt)
        return (await stream(sdks, "openai", prompt))[0]

    assert "".join(run(simulator, twice)) == SIXTY
    assert [outcome for outcome, _ in simulator.outcomes()] == ["cut_off", "answered"]
