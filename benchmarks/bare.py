"""The yardstick: a plain loop over the `openai` SDK, in a process of its own, with no broker, no ledger and no accounting.

`python -m benchmarks.bare --base-url URL --calls N --concurrent C` prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Iterator

import openai
import uvloop

from benchmarks.load import MAX_OUTPUT_TOKENS, MODEL, prompt

WARM_UP = 200


def main() -> None:
    """Make the calls and print what they cost this process."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bare")
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--calls", type=int, required=True)
    parser.add_argument("--concurrent", type=int, required=True)
    arguments = parser.parse_args()
    print(json.dumps(uvloop.run(_measure(arguments.base_url, arguments.calls, arguments.concurrent))))


async def _measure(base_url: str, calls: int, concurrent: int) -> dict[str, float]:
    client = openai.AsyncOpenAI(
        api_key="sim-key", base_url=base_url, max_retries=0, http_client=openai.DefaultAioHttpClient()
    )
    await _call_all(client, WARM_UP, concurrent)
    began, cpu = time.perf_counter(), time.process_time()
    answered = await _call_all(client, calls, concurrent)
    spent, took = time.process_time() - cpu, time.perf_counter() - began
    await client.close()
    return {"calls": calls, "answered": answered, "warm_up": WARM_UP, "seconds": took, "cpu_seconds": spent}


async def _call_all(client: openai.AsyncOpenAI, calls: int, concurrent: int) -> int:
    """Make `calls` calls from `concurrent` loops; how many gave a text."""
    numbers = iter(range(calls))
    return sum(await asyncio.gather(*(_loop(client, numbers) for _ in range(min(calls, concurrent)))))


async def _loop(client: openai.AsyncOpenAI, numbers: Iterator[int]) -> int:
    answered = 0
    for number in numbers:
        answer = await client.chat.completions.create(
            model=MODEL.partition("/")[2],
            messages=[{"role": "user", "content": prompt(number)}],
            max_completion_tokens=MAX_OUTPUT_TOKENS,
        )
        answered += bool(answer.choices[0].message.content)
    return answered


if __name__ == "__main__":
    main()
