"""Half an hour at a constant rate: does memory stay flat, do descriptors come back, does latency hold, is nothing lost?

`make soak` starts the local stack and sends at one rate, whatever comes back. Every two seconds it reads the resident memory and
the open descriptors of every process. Exit status 1 when one of our four workers grows or latency does, by the rule in
`benchmarks/growth.py`, when requests = answers = usage rows = provider calls does not hold, or when `reconcile` finds a
difference. Servers are shown and not judged: Kafka and ClickHouse fill their caches, and the simulator remembers every call.
It prints a picture and writes `benchmarks/results/soak.json`.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import orjson
import psutil
from rich.console import Console

from benchmarks.flow import Flow
from benchmarks.growth import DESCRIPTORS, MEMORY, P50, P99, Growth, Limit, growth
from benchmarks.machine import machine, versions
from benchmarks.rounds import OURS, Bench, Parity, as_json
from benchmarks.soak_report import picture
from cli.reconcile.gather import reconcile
from cli.running import Running, running
from core.reconcile import Line
from sinks.window import REPUBLISHED_WITHIN

RESULTS = Path(__file__).parent / "results" / "soak.json"
SAMPLE_SECONDS = 2.0
#: Latency is looked at in stretches of a minute, in shorter ones where there would be fewer than 18.
STRETCH_SECONDS = 60.0
FEWEST_STRETCHES = 18
#: What the sink keeps of each event on purpose, to know it when it comes again: see `sinks/window.py`. Of a request it stores three.
WINDOW_BYTES = 150
EVENTS = 3

Json = dict[str, Any]


@dataclass
class Series:
    """One process over time: seconds since the start, answers until then, resident bytes, open descriptors."""

    at: list[float] = field(default_factory=list)
    answered: list[int] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    descriptors: list[float] = field(default_factory=list)


def main() -> int:
    """Soak, print and write down."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=_positive, default=30.0, help="how long to send (default: %(default)g)")
    parser.add_argument("--rate", type=_positive, default=50.0, help="requests a second (default: %(default)g)")
    arguments = parser.parse_args()
    console = Console()
    with (
        console.status("Starting the local stack ...") as status,
        running(progress=status.update) as run,
    ):
        report = soak(run, arguments.minutes * 60, arguments.rate, status.update)
    for part in picture(report, console.width):
        console.print(part)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2) + b"\n")
    console.print(f"Written to {RESULTS.relative_to(Path(__file__).parent.parent)}.")
    for failure in report["failures"]:
        print(failure, file=sys.stderr)
    return 1 if report["failures"] else 0


def _positive(text: str) -> float:
    if (number := float(text)) > 0:
        return number
    raise argparse.ArgumentTypeError(f"{text} is not above 0")


def soak(run: Running, seconds: float, rate: float, say: Callable[[str], None]) -> Json:
    """Send for so many seconds at so many requests a second; everything that was seen, and what fails."""
    stretch = min(STRETCH_SECONDS, seconds / FEWEST_STRETCHES)
    bench = Bench(run)
    bench.reset_simulator()
    rows, load_before = bench.usage_rows(), os.getloadavg()[0]
    pids = {name: child.pid for name, child in run.workers.items()} | run.stack.processes
    flow = Flow(bench.client, rate, seconds, stretch)
    series = _watched(flow, {name: psutil.Process(pid) for name, pid in pids.items()}, seconds, say)
    flow.wait()
    say("Waiting for the last rows ...")
    parity = bench.settled(flow.sent, flow.completed, rows)
    clickhouse = str(bench.clickhouse.query("SELECT version()").result_rows[0][0])
    bench.close()
    say("Reconciling ...")
    lines = reconcile(run.settings, None, run.stack.simulator_url).lines
    latency = flow.percentiles()
    growths = _growths(series, latency, stretch, run.settings.topic_partitions)
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {**machine(), "load_before": round(load_before, 2), "load_after": round(os.getloadavg()[0], 2)},
        "versions": versions(clickhouse),
        "settings": {"seconds": seconds, "requests_per_second": rate, "stretch_seconds": stretch},
        "requests_per_second_sent": flow.sent / seconds,
        "latency_ms": latency,
        "processes": {name: _by_stretch(one, stretch, len(latency)) for name, one in series.items()},
        "growth": {name: {**asdict(one), "grows": one.grows} for name, one in growths.items()},
        "parity": as_json(parity),
        "reconcile": {line.name: {"status": line.status, "differing": line.differing} for line in lines},
        "failures": failures(growths, parity, lines, missing=sum(each is None for each in latency)),
    }


def failures(growths: dict[str, Growth], parity: Parity, lines: list[Line], missing: int) -> list[str]:
    """A sentence for everything that makes the soak fail."""
    found = [
        f"{name} grows: by {one.first:,.0f} and then {one.second:,.0f} in the halves after the warm-up, {one.limit:,.0f} is allowed."
        for name, one in growths.items()
        if one.grows
    ]
    if missing:
        found.append(f"No two answers came in {missing} of the stretches of time, so latency cannot be judged.")
    if not parity.holds:
        found.append(f"Requests = answers = usage rows = calls does not hold: {asdict(parity)}.")
    found += [f"Reconcile: {line.name} is {line.status}." for line in lines if line.status == "BROKEN"]
    return found


def _watched(
    flow: Flow, processes: dict[str, psutil.Process], seconds: float, say: Callable[[str], None]
) -> dict[str, Series]:
    series = {name: Series() for name in processes}
    while flow.sending:
        for name, process in processes.items():
            with process.oneshot():
                series[name].memory.append(process.memory_info().rss)
            series[name].descriptors.append(process.num_fds())
            series[name].at.append(flow.seconds)
            series[name].answered.append(flow.completed)
        say(f"{flow.seconds / 60:.1f} of {seconds / 60:g} minutes, {flow.sent:,} sent, {flow.completed:,} answered ...")
        time.sleep(SAMPLE_SECONDS)
    return series


def _growths(
    series: dict[str, Series], latency: list[dict[str, float] | None], stretch: float, partitions: int
) -> dict[str, Growth]:
    def judged(at: list[float], values: list[float], limit: Limit) -> Growth:
        return growth(list(zip(at, values, strict=True)), limit)

    sink = series["sink"]
    full = EVENTS * partitions * REPUBLISHED_WITHIN
    windows = [WINDOW_BYTES * min(EVENTS * answered, full) for answered in sink.answered]
    found = {
        f"{name}, memory in bytes": judged(series[name].at, series[name].memory, MEMORY)
        for name in OURS
        if name != "sink"
    }
    without = [memory - held for memory, held in zip(sink.memory, windows, strict=True)]
    found["sink less its windows, memory in bytes"] = judged(sink.at, without, MEMORY)
    found |= {f"{name}, descriptors": judged(series[name].at, series[name].descriptors, DESCRIPTORS) for name in OURS}
    known = [(number * stretch, each) for number, each in enumerate(latency) if each is not None]
    for quantile, limit in (("p50", P50), ("p99", P99)):
        found[f"latency {quantile} in ms"] = judged(
            [at for at, _ in known], [each[quantile] for _, each in known], limit
        )
    return found


def _by_stretch(one: Series, stretch: float, count: int) -> dict[str, list[float]]:
    """The median of a process's memory and descriptors by stretch, so that the file stays small."""
    found: dict[str, list[float]] = {"memory_bytes": [], "descriptors": []}
    for number in range(count):
        here = [i for i, at in enumerate(one.at) if min(count - 1, int(at / stretch)) == number]
        if here:
            found["memory_bytes"].append(median(one.memory[i] for i in here))
            found["descriptors"].append(median(one.descriptors[i] for i in here))
    return found


if __name__ == "__main__":
    sys.exit(main())
