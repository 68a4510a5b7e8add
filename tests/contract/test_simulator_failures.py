"""What of the simulator goes wrong as it is told to, in the form of each provider, behind the providers' real SDKs."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import httpx2
import pytest

from local.processes import Child, wait_until
from tests.contract.sdks import (
    PROVIDERS,
    REFUSALS,
    Sdks,
    ask,
    body_of,
    directive,
    every_provider,
    refusals,
    run,
    status_of,
    text_of,
)
from tests.contract.simulator import Simulator


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
    simulator.hold(name, status=503)

    async def each(sdks: Sdks) -> list[int]:
        prompt = directive(fault="refusal")
        results = await asyncio.gather(*(sdks.ask(n, prompt) for n in PROVIDERS), return_exceptions=True)
        return [status_of(r) if isinstance(r, REFUSALS) else 200 for r in results]

    assert run(simulator, each) == [503 if n == name else 200 for n in PROVIDERS]
    simulator.release()
    assert run(simulator, each) == [200, 200, 200]


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
