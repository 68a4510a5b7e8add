"""Two thousand slow calls in flight in one `complete` process: are they, and does its memory stay flat?"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from statistics import mean
from typing import Any

import psutil

from benchmarks.load import Load, Shape
from benchmarks.rounds import Bench, Parity
from cli import kafka
from core.topics import calls

IN_FLIGHT = 2_000
CALL_MS = 2_000
SAMPLE_SECONDS = 0.2
SLOW = Shape(directive=f' [[sim {{"latency_ms": {CALL_MS}}}]]')
LANE = {"MILLSTREAM_LANE_CONCURRENCY": str(IN_FLIGHT), "MILLSTREAM_LANE_IN_FLIGHT": str(2 * IN_FLIGHT)}


@dataclass(frozen=True)
class Sample:
    """One look: seconds since the process was ready, its resident bytes, and calls in flight at the simulator."""

    at: float
    memory: int
    in_flight: int


@dataclass(frozen=True)
class LongCalls:
    """What was seen of the process, and what came of the calls."""

    max_in_flight: int
    samples: Sequence[Sample]
    load: Load
    parity: Parity

    def memory_while_full(self) -> tuple[int, int]:
        """Mean resident bytes in the first and in the last quarter of the samples with at least 80 % of the most in flight."""
        full = [sample.memory for sample in self.samples if sample.in_flight >= 0.8 * self.max_in_flight]
        quarter = max(1, len(full) // 4)
        return int(mean(full[:quarter])), int(mean(full[-quarter:]))


def long_calls(bench: Bench, waves: int) -> LongCalls:
    """Let `waves` times 2,000 calls of 2 s pile up in their lane, then start one `complete` process on them."""
    settings, lane, count = bench.run.settings, calls("openai"), waves * IN_FLIGHT
    bench.run.workers.pop("complete").stop()
    before, rows = kafka.count(settings, lane), bench.usage_rows()
    bench.reset_simulator()
    with ThreadPoolExecutor(1) as threads:
        loading = threads.submit(bench.client.backlog, count, SLOW)
        while kafka.count(settings, lane) < before + count and not loading.done():
            time.sleep(0.2)
        child = bench.run.start_worker("complete", ["worker", "complete", "--provider", "openai"], LANE)
        bench.run.wait_ready("complete", 1)
        samples = _samples(bench, psutil.Process(child.pid), loading)
        load = loading.result()
    parity = bench.settled(load.sent, load.completed, rows)
    return LongCalls(int(bench.simulator()["max_in_flight"]), samples, load, parity)


def _samples(bench: Bench, process: psutil.Process, loading: Future[Any]) -> list[Sample]:
    began = time.perf_counter()
    found = []
    while not loading.done():
        in_flight = int(bench.simulator()["in_flight"])
        found.append(Sample(time.perf_counter() - began, process.memory_info().rss, in_flight))
        time.sleep(SAMPLE_SECONDS)
    return found
