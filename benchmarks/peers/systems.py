"""The systems under comparison: each takes the same loads and says what they cost it and what it proved."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from benchmarks.bare import Caller
from benchmarks.figures import percentiles
from benchmarks.machine import Cost, Gauge
from benchmarks.peers.litellm import KEY, LiteLLM
from benchmarks.rounds import OURS, Bench, Round, as_json, bare_parity, is_ours

#: LiteLLM's logging goes on after an answer is out; its cost belongs to the request.
AFTERMATH_SECONDS = 1.0


@dataclass(frozen=True)
class Point:
    """One load on one system. CPU seconds and resident bytes are those of the gateway and of the servers that it needs."""

    answers: int
    seconds: float
    took_ms: dict[str, float]
    gateway_cpu: dict[str, float]
    servers_cpu: dict[str, float]
    simulator_cpu: float
    others_cpu: float
    gateway_memory: int
    servers_memory: dict[str, int]
    parity: dict[str, Any]


class System(Protocol):
    """A way to get requests answered by the provider."""

    name: str

    def closed(self, requests: int, concurrent: int) -> Point:
        """So many requests, never more than `concurrent` of them unanswered."""

    def opened(self, per_second: float, seconds: float) -> Point:
        """Requests at a constant rate; latency counts from when each was due."""


class Millstream:
    """The whole pipeline: four processes, the ledger in SQLite, the broker, ClickHouse."""

    name = "millstream"

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def closed(self, requests: int, concurrent: int) -> Point:
        """See `System`."""
        return _point_of(self._bench.closed(requests, concurrent))

    def opened(self, per_second: float, seconds: float) -> Point:
        """See `System`."""
        return _point_of(self._bench.opened(per_second, seconds))


class _Called(ABC):
    """A system that a process of its own calls directly."""

    def __init__(self, bench: Bench, caller: Caller) -> None:
        self._bench = bench
        self._caller = caller

    def closed(self, requests: int, concurrent: int) -> Point:
        """See `System`."""
        return self._measure(lambda: self._caller.closed(requests, concurrent))

    def opened(self, per_second: float, seconds: float) -> Point:
        """See `System`."""
        return self._measure(lambda: self._caller.opened(per_second, seconds))

    def close(self) -> None:
        """End the calling process."""
        self._caller.close()

    @abstractmethod
    def _measure(self, load: Callable[[], dict[str, Any]]) -> Point:
        """Put a load on the system."""


class Proxied(_Called):
    """LiteLLM's proxy, called over plain aiohttp by a process that does not count as its own."""

    name = "litellm"

    def __init__(self, bench: Bench, proxy: LiteLLM) -> None:
        super().__init__(bench, Caller("aiohttp", f"{proxy.url}/v1", KEY))
        self._proxy = proxy

    def _measure(self, load: Callable[[], dict[str, Any]]) -> Point:
        gauge = _gauge(self._bench, gateway=self._proxy.pids(), driver=self._caller.pid)
        result = load()
        time.sleep(AFTERMATH_SECONDS)
        cost = gauge.since()
        return _plain_point(self._bench, result, cost, {"proxy": cost.cpu["gateway"]}, gauge.memory()["gateway"])


class Plain(_Called):
    """Plain calls over an SDK, or over aiohttp alone: the caller is all there is."""

    def __init__(self, bench: Bench, over: str, base_url: str) -> None:
        super().__init__(bench, Caller(over, base_url))
        self.name = over

    def _measure(self, load: Callable[[], dict[str, Any]]) -> Point:
        gauge = _gauge(self._bench, gateway=[self._caller.pid])
        result = load()
        cpu = {"caller": result["cpu_seconds"]}
        return _plain_point(self._bench, result, gauge.since(), cpu, gauge.memory()["gateway"])


def _gauge(bench: Bench, **pids: int | list[int]) -> Gauge:
    bench.reset_simulator()
    return Gauge({**pids, "simulator": bench.run.stack.processes["simulator"]})


def _plain_point(bench: Bench, result: dict[str, Any], cost: Cost, cpu: dict[str, float], memory: int) -> Point:
    parity = bare_parity(result["calls"], result["answered"], bench.simulator()["outcomes"]["answered"])
    return Point(
        result["answered"], result["seconds"], result["took_ms"], cpu, {},
        cost.cpu["simulator"], cost.others, memory, {}, parity,
    )  # fmt: skip


def _point_of(one: Round) -> Point:
    cpu, memory = one.cost.cpu, one.memory
    servers = [name for name in cpu if not is_ours(name) and name not in ("simulator", "driver")]
    return Point(
        len(one.load.answers), one.load.seconds, percentiles(one.load.took_ms),
        {name: cpu[name] for name in OURS}, {name: cpu[name] for name in servers},
        cpu["simulator"], one.cost.others,
        sum(memory[name] for name in OURS), {name: memory[name] for name in servers}, as_json(one.parity),
    )  # fmt: skip
