"""The simulator's account: what every call cost, and what all of them add up to."""

from __future__ import annotations

import asyncio
import json
import socket
from decimal import Decimal

import pytest

from local.processes import wait_until
from tests.contract.sdks import (
    PROVIDERS,
    Sdks,
    ask,
    directive,
    run,
)
from tests.contract.simulator import Simulator

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
        simulator.reset()
    ask(simulator, "openai", "hello")
    assert simulator.outcomes() == [("answered", 200)]
