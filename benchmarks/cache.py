"""How long an answer from the response cache takes: `python -m benchmarks.cache`

A local stack with all workers, the simulator at 50 ms. Equal requests at a constant rate get the answer of the first of them; as many different
ones on the same route are called. Latency is from when a request was made until its answer was decided, and the call's own time is
part of the second kind. Prints a table, writes `benchmarks/results/cache.json`.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console

from benchmarks.figures import arrivals, percentiles
from benchmarks.machine import machine
from benchmarks.report import table
from cli.exchange import Exchange
from cli.lines import request_of
from cli.running import Running, running
from config.database import open_database
from config.registry import apply
from core.registry import Route, Target
from schemas.codec import Event

RESULTS = Path(__file__).parent / "results" / "cache.json"
RATE, SECONDS = 50.0, 10.0
ROUTE = Route("cached", (Target("openai/gpt-5-mini"),), task="cached", cache_seconds=3_600)
ENVIRONMENT = {"MILLSTREAM_REGISTRY_REFRESH_SECONDS": "1"}


def main() -> int:
    """Measure, print and write down; 1 when a request had no answer, or one of another kind."""
    with running(environment=ENVIRONMENT, progress=lambda line: print(line, file=sys.stderr)) as run:
        _register(run)
        kinds: dict[str, Callable[[int], str]] = {
            "called": lambda n: f"Question {n}.",
            "from the cache": lambda _: "Same.",
        }
        rounds = {name: _steady(run, prompt) for name, prompt in kinds.items()}
    calls = {name: sum(answer["attempts"] for answer in answers) for name, answers in rounds.items()}
    asked = len(list(arrivals(RATE, SECONDS)))
    holds = [len(answers) for answers in rounds.values()] == [asked, asked] and list(calls.values()) == [asked, 1]
    latency = {
        name: percentiles([(answer["finished_at"] - answer["created_at"]) / 1_000 for answer in answers])
        for name, answers in rounds.items()
    }
    report = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine(),
        "load_average": round(os.getloadavg()[0], 2), "requests_per_second": RATE, "requests": asked,
        "provider_calls": calls, "milliseconds_until_answered": latency, "holds": holds,
    }  # fmt: skip
    RESULTS.write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2) + b"\n")
    made = table(f"ms until answered, {RATE:g} a second", ("", "p50", "p95", "p99", "calls"), "lrrrr")
    for name, cuts in latency.items():
        made.add_row(name, *(f"{value:.1f}" for value in cuts.values()), f"{calls[name]:,}")
    Console().print(made)
    return 0 if holds else 1


def _register(run: Running) -> None:
    engine = open_database(run.settings.database_url)
    with engine.begin() as db:
        apply(db, lambda now: replace(now, routes={ROUTE.name: ROUTE}), run.settings, "benchmark", 0)
    engine.dispose()
    time.sleep(3)


def _steady(run: Running, prompt: Callable[[int], str]) -> list[Event]:
    exchange = Exchange(run.settings)
    ids, began = [], time.monotonic()
    for number, due in enumerate(arrivals(RATE, SECONDS)):
        time.sleep(max(0.0, began + due - time.monotonic()))
        line: dict[str, Any] = {"prompt": f'{prompt(number)} [[sim {{"latency_ms": 50}}]]', "task": "cached"}
        request = request_of(line, {}, "benchmark")
        exchange.send(request)
        ids.append(request["request_id"])
    exchange.flush()
    answers = exchange.answers(ids, 30)
    exchange.close()
    return list(answers.values())


if __name__ == "__main__":
    sys.exit(main())
