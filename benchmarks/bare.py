"""The yardstick: plain calls over an official SDK, or over aiohttp alone, with no broker, no ledger and no accounting.

`python -m benchmarks.bare --over openai --base-url URL` makes calls in a process of its own: for each line on its input,
`{"calls": 3000, "concurrent": 256}` (each loop calls again when it has its answer) or `{"per_second": 200, "seconds": 8}`
(at a constant rate, whatever comes back), it makes the calls and prints one JSON object on a line. `Caller` is the other
end of that pipe.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import uvloop

from benchmarks.figures import arrivals, percentiles
from benchmarks.load import MAX_OUTPUT_TOKENS, MODEL, prompt

Call = Callable[[int], Awaitable[bool]]
Open = Callable[[str, str], AbstractAsyncContextManager[Call]]
NAME = MODEL.partition("/")[2]


class Caller:
    """A process that makes plain calls over `over` when told to, until it is closed."""

    def __init__(self, over: str, base_url: str, key: str = "sim-key") -> None:
        command = [sys.executable, "-m", "benchmarks.bare", "--over", over, "--base-url", base_url, "--key", key]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def closed(self, calls: int, concurrent: int) -> dict[str, Any]:
        """Make calls from so many loops."""
        return self._ask({"calls": calls, "concurrent": concurrent})

    def opened(self, per_second: float, seconds: float) -> dict[str, Any]:
        """Make calls at a constant rate."""
        return self._ask({"per_second": per_second, "seconds": seconds})

    def close(self) -> None:
        """End the process."""
        self._process.communicate(timeout=30)

    def _ask(self, job: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps(job), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(
                f"The process of plain calls ended with status {self._process.wait()}; see its errors above."
            )
        found: dict[str, Any] = json.loads(line)
        return found


@asynccontextmanager
async def _openai(base_url: str, key: str) -> AsyncIterator[Call]:
    import openai

    http = openai.DefaultAioHttpClient()
    async with openai.AsyncOpenAI(api_key=key, base_url=base_url, max_retries=0, http_client=http) as client:

        async def call(number: int) -> bool:
            answer = await client.chat.completions.create(
                model=NAME,
                messages=[{"role": "user", "content": prompt(number)}],
                max_completion_tokens=MAX_OUTPUT_TOKENS,
            )
            return bool(answer.choices[0].message.content)

        yield call


@asynccontextmanager
async def _anthropic(base_url: str, key: str) -> AsyncIterator[Call]:
    import anthropic

    http = anthropic.DefaultAioHttpClient()
    async with anthropic.AsyncAnthropic(api_key=key, base_url=base_url, max_retries=0, http_client=http) as client:

        async def call(number: int) -> bool:
            answer = await client.messages.create(
                model="claude-haiku-4-5",
                messages=[{"role": "user", "content": prompt(number)}],
                max_tokens=MAX_OUTPUT_TOKENS,
            )
            return bool(answer.content)

        yield call


@asynccontextmanager
async def _google(base_url: str, key: str) -> AsyncIterator[Call]:
    from google import genai
    from google.genai import types

    client = genai.Client(api_key=key, vertexai=False, http_options=types.HttpOptions(base_url=base_url))
    config = types.GenerateContentConfig(max_output_tokens=MAX_OUTPUT_TOKENS)

    async def call(number: int) -> bool:
        answer = await client.aio.models.generate_content(
            model="gemini-2.5-flash", contents=prompt(number), config=config
        )
        return bool(answer.text)

    yield call
    await client.aio.aclose()


@asynccontextmanager
async def _aiohttp(base_url: str, key: str) -> AsyncIterator[Call]:
    import aiohttp
    import orjson

    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    url = f"{base_url}/chat/completions"
    # A server that closes idle connections (uvicorn after 5 s) must not do so just when one is used again.
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=2.0)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:

        async def call(number: int) -> bool:
            messages = [{"role": "user", "content": prompt(number)}]
            body = {"model": NAME, "messages": messages, "max_completion_tokens": MAX_OUTPUT_TOKENS}
            try:
                async with session.post(url, data=orjson.dumps(body)) as response:
                    raw = await response.read()
            except aiohttp.ClientError:
                return False
            return response.status == 200 and bool(orjson.loads(raw)["choices"][0]["message"]["content"])

        yield call


OVER: dict[str, Open] = {"openai": _openai, "anthropic": _anthropic, "google": _google, "aiohttp": _aiohttp}


class _Calls:
    """Calls under measurement: how many gave a text, and the milliseconds that each took from when it was due."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self.answered = 0
        self.took_ms: list[float] = []

    async def closed(self, calls: int, concurrent: int) -> None:
        """Make `calls` calls from `concurrent` loops."""
        numbers = iter(range(calls))
        await asyncio.gather(*(self._loop(numbers) for _ in range(min(calls, concurrent))))

    async def opened(self, per_second: float, seconds: float) -> None:
        """Make calls at a constant rate; one that could be sent too late only still counts from when it was due."""
        begin = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number, at in enumerate(arrivals(per_second, seconds)):
                if (wait := begin + at - time.perf_counter()) > 0:
                    await asyncio.sleep(wait)
                group.create_task(self._one(number, begin + at))

    async def _loop(self, numbers: Iterator[int]) -> None:
        for number in numbers:
            await self._one(number, time.perf_counter())

    async def _one(self, number: int, due: float) -> None:
        answered = await self._call(number)
        self.answered += answered
        self.took_ms.append((time.perf_counter() - due) * 1_000)


async def _serve(opener: Open, base_url: str, key: str) -> None:
    async with opener(base_url, key) as call:
        while line := await asyncio.to_thread(sys.stdin.readline):
            job = json.loads(line)
            calls = _Calls(call)
            began, cpu = time.perf_counter(), time.process_time()
            await (calls.closed(**job) if "concurrent" in job else calls.opened(**job))
            spent, took = time.process_time() - cpu, time.perf_counter() - began
            found = {"calls": len(calls.took_ms), "answered": calls.answered, "seconds": took, "cpu_seconds": spent}
            print(json.dumps({**found, "took_ms": percentiles(calls.took_ms)}), flush=True)


def main() -> None:
    """Make calls for each line of input."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bare")
    parser.add_argument("--over", choices=OVER, required=True)
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--key", default="sim-key")
    arguments = parser.parse_args()
    uvloop.run(_serve(OVER[arguments.over], arguments.base_url, arguments.key))


if __name__ == "__main__":
    main()
