"""The measurements: a backlog, a steady rate and the bare loop, each with the proof that nothing was lost in it."""

from __future__ import annotations

import json
import os
import time
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.bare import Caller
from benchmarks.load import ORDINARY, Client, Load, Shape
from benchmarks.machine import Cost, Gauge
from cli.running import Running
from config import audit
from config.database import open_database
from sinks.writer import connect

OURS = ("admit", "complete", "meter", "sink")
SETTLE_SECONDS = 30.0


def is_ours(name: str) -> bool:
    """Whether this is one of our processes; `complete-2` is a second one of `complete`."""
    return name.partition("-")[0] in OURS


@dataclass(frozen=True)
class Parity:
    """What has to be equal once everything is through; `open` counts what the ledger still holds open."""

    sent: int
    answers: int
    usage_rows: int
    provider_calls: int
    open: int = 0

    @property
    def holds(self) -> bool:
        """Whether every request has its answer, its provider call and its row, and the ledger is closed."""
        return self.sent == self.answers == self.usage_rows == self.provider_calls and self.open == 0


@dataclass(frozen=True)
class Round:
    """One load on the pipeline: what it cost, until its last row was in ClickHouse, and what it proved."""

    load: Load
    cost: Cost
    memory: dict[str, int]
    parity: Parity

    def cpu_ms(self, name: str) -> float:
        """CPU milliseconds of one process for each answered request."""
        return self.cost.cpu[name] / max(1, len(self.load.answers)) * 1_000

    @property
    def ours_ms(self) -> float:
        """CPU milliseconds of all our processes for each answered request."""
        return sum(self.cpu_ms(name) for name in self.cost.cpu if is_ours(name))


class Bench:
    """A running pipeline under measurement."""

    def __init__(self, run: Running) -> None:
        self.run = run
        self.clickhouse = connect(run.settings)
        self.client = Client(run.settings)
        self._database = open_database(run.settings.database_url)

    def backlog(self, requests: int, shape: Shape = ORDINARY) -> Round:
        """A backlog of requests, worked off as fast as the pipeline can."""
        return self._round(lambda: self.client.backlog(requests, shape))

    def closed(self, requests: int, concurrent: int, shape: Shape = ORDINARY) -> Round:
        """Requests of which never more than `concurrent` are unanswered."""
        return self._round(lambda: self.client.closed(requests, concurrent, shape))

    def opened(self, per_second: float, seconds: float) -> Round:
        """Requests at a constant rate."""
        return self._round(lambda: self.client.steady(per_second, seconds))

    def bare(self, caller: Caller, calls: int, concurrent: int) -> dict[str, Any]:
        """The bare loop's calls per second and CPU per call."""
        self.reset_simulator()
        gauge = Gauge(self._servers())
        result = caller.closed(calls, concurrent)
        simulator_cpu = gauge.since().cpu["simulator"]
        served = self.simulator()["outcomes"]["answered"]
        return {
            "calls": calls,
            "calls_per_second": calls / result["seconds"],
            "cpu_ms_per_call": result["cpu_seconds"] / calls * 1_000,
            "cores": result["cpu_seconds"] / result["seconds"],
            "simulator_cpu_ms_per_call": simulator_cpu / served * 1_000,
            "parity": bare_parity(calls, result["answered"], served),
        }

    def idle(self, seconds: float) -> Cost:
        """What the processes use while nothing is asked of them."""
        gauge = self.gauge()
        time.sleep(seconds)
        return gauge.since()

    def gauge(self) -> Gauge:
        """A gauge on every process: ours, the servers and this one."""
        workers = {name: child.pid for name, child in self.run.workers.items()}
        return Gauge({**workers, **self._servers(), "driver": os.getpid()})

    def simulator(self) -> dict[str, Any]:
        """The simulator's own account over all its providers."""
        overall: dict[str, Any] = self._ask("ledger")["overall"]
        return overall

    def reset_simulator(self) -> None:
        """Empty the simulator's account."""
        self._ask("reset", "POST")

    def provider_us(self) -> dict[str, int]:
        """How long each call took at the simulator, by the attempt id that it was sent."""
        calls = self._ask("calls?since=0")
        return {call["client_request_id"]: call["finished_us"] - call["received_us"] for call in calls}

    def usage_rows(self) -> int:
        """Rows in the usage table."""
        return int(self.clickhouse.query("SELECT count() FROM usage").result_rows[0][0])

    def close(self) -> None:
        """Let go of the servers."""
        self.client.close()
        self.clickhouse.close()
        self._database.dispose()

    def _round(self, load_of: Callable[[], Load]) -> Round:
        rows = self.usage_rows()
        self.reset_simulator()
        gauge = self.gauge()
        load = load_of()
        parity = self.settled(load.sent, load.completed, rows)
        return Round(load, gauge.since(), gauge.memory(), parity)

    def settled(self, sent: int, completed: int, rows_before: int) -> Parity:
        """The parity once it holds, or as it stands when the sink and the meter have had time enough."""
        ends = time.monotonic() + SETTLE_SECONDS
        while self.usage_rows() - rows_before < completed and time.monotonic() < ends:
            time.sleep(0.1)
        while True:
            with self._database.begin() as db:
                held = audit.totals(db)
            calls = self.simulator()["outcomes"]["answered"]
            open_ = held.unsettled + held.unanswered + (held.reserved_nano > 0)
            parity = Parity(sent, completed, self.usage_rows() - rows_before, calls, open_)
            if parity.holds or time.monotonic() > ends:
                return parity
            time.sleep(0.1)

    def _servers(self) -> dict[str, int]:
        return dict(self.run.stack.processes)

    def _ask(self, path: str, method: str = "GET") -> Any:
        asked = urllib.request.Request(f"{self.run.stack.simulator_url}/_sim/{path}", method=method)
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return json.load(answer)


#: Where a request's time goes from when it was due, between the moments that its answer names, to its consumer; from those with a
#: star the provider's own time is taken out, as the provider saw it.
STEPS = (
    "due → admitted",
    "admitted → started",
    "started → finished*",
    "due → finished*",
    "finished → received",
    "due → received*",
)


def added_ms(load: Load, provider_us: dict[str, int]) -> dict[str, list[float]]:
    """Milliseconds of every completed answer by step; `provider_us` is the provider's time by attempt id."""
    found: dict[str, list[float]] = {step: [] for step in STEPS}
    for request_id, answer in load.answers.items():
        if answer["outcome"] != "completed":
            continue
        provider = provider_us[answer["attempt_id"]]
        admitted, started, finished = (answer[f"{name}_at"] for name in ("admitted", "started", "finished"))
        due, received = load.due_us[request_id], load.received_us[request_id]
        spans = (
            admitted - due, started - admitted, finished - started - provider, finished - due - provider,
            received - finished, received - due - provider,
        )  # fmt: skip
        for step, microseconds in zip(STEPS, spans, strict=True):
            found[step].append(microseconds / 1_000)
    return found


def as_json(parity: Parity) -> dict[str, Any]:
    """The parity with its verdict."""
    return {**asdict(parity), "holds": parity.holds}


def bare_parity(sent: int, answers: int, provider_calls: int) -> dict[str, Any]:
    """The parity of plain calls, with its verdict."""
    holds = sent == answers == provider_calls
    return {"sent": sent, "answers": answers, "provider_calls": provider_calls, "holds": holds}
