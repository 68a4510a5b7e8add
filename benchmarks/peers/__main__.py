"""Millstream beside its peers: `python -m benchmarks.peers`, which `make bench-peers` runs.

In each round every system gets the same closed loads, and then requests at half of the most that it has answered a
second, in an order that turns around from round to round. All systems are up all the time, and all call the same simulator.
Prints tables, writes `benchmarks/results/peers.json`; exit status 1 when an answer, a row or a call is missing anywhere.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console

from benchmarks.machine import machine, versions
from benchmarks.peers.litellm import LiteLLM
from benchmarks.peers.litellm import version as litellm_version
from benchmarks.peers.report import aims, summary, tables
from benchmarks.peers.systems import Millstream, Plain, Point, Proxied, System
from benchmarks.report import progress
from benchmarks.rounds import Bench
from cli.running import running

RESULTS = Path(__file__).parents[1] / "results" / "peers.json"
SIMULATOR_MS = 50
CONCURRENT = (10, 50, 100, 256)
LEAST_REQUESTS = 400
WARM_UP = (600, 50)
CEILING = (5_000, 512)
STEADY_SECONDS = 8.0

Json = dict[str, Any]


def main() -> int:
    """Measure, print and write down."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="times to measure each (default: %(default)s)")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=SYSTEMS, help="which (default: all)")
    parser.add_argument(
        "--concurrent", type=int, nargs="+", default=CONCURRENT, help="closed loads (default: 10 50 100 256)"
    )
    parser.add_argument("--turns", type=int, default=10, help="requests a slot of a closed load (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where to write (default: %(default)s)")
    arguments = parser.parse_args()
    console = Console()
    with (
        progress(console, "Starting everything ...") as say,
        _systems(arguments.systems, say) as (bench, systems),
    ):
        report = _measure(bench, systems, arguments, say)
    for table in tables(report):
        console.print(table)
    arguments.results.parent.mkdir(exist_ok=True)
    arguments.results.write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2) + b"\n")
    console.print(f"Written to {arguments.results}.")
    if not report["all_parities_hold"]:
        print("Something was lost or counted twice: see the parities above.", file=sys.stderr)
        return 1
    return 0


SYSTEMS = ("millstream", "litellm", "openai", "anthropic", "google", "aiohttp")


@contextmanager
def _systems(names: list[str], say: Callable[[str], None]) -> Iterator[tuple[Bench, list[System]]]:
    with running(progress=say) as run, closing(Bench(run)) as bench, ExitStack() as stops:
        provider = run.environment
        urls = {
            "openai": provider["OPENAI_BASE_URL"], "anthropic": provider["ANTHROPIC_BASE_URL"],
            "google": provider["GOOGLE_GEMINI_BASE_URL"], "aiohttp": provider["OPENAI_BASE_URL"],
        }  # fmt: skip
        found: list[System] = []
        for name in names:
            if name == "millstream":
                found.append(Millstream(bench))
                continue
            if name == "litellm":
                say("Starting LiteLLM, which takes up to a minute ...")
                proxy = LiteLLM(urls["openai"], Path(run.stack.data_dir))
                stops.callback(proxy.stop)
                proxy.wait()
            system = Proxied(bench, proxy) if name == "litellm" else Plain(bench, name, urls[name])
            stops.callback(system.close)
            found.append(system)
        yield bench, found


def _measure(bench: Bench, systems: list[System], arguments: argparse.Namespace, say: Callable[[str], None]) -> Json:
    for system in systems:
        say(f"Warming up {system.name} ...")
        system.closed(*WARM_UP)
    report: Json = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(str(bench.clickhouse.query("SELECT version()").result_rows[0][0])),
        "settings": {
            "rounds": arguments.rounds, "concurrent": list(arguments.concurrent), "turns": arguments.turns,
            "simulator_ms": SIMULATOR_MS, "steady_seconds": STEADY_SECONDS,
        },
        "simulator": _ceiling(bench),
        "points": [],
    }  # fmt: skip
    if "litellm" in arguments.systems:
        report["versions"]["litellm"] = litellm_version()
    for number in range(1, arguments.rounds + 1):
        for system in systems if number % 2 else reversed(systems):
            for load, point in _loads(system, arguments.concurrent, arguments.turns):
                say(f"Round {number} of {arguments.rounds}: {system.name}, {load} ...")
                report["points"].append(_json(system.name, number, load, point()))
    report["summary"] = summary(report["points"], SIMULATOR_MS)
    most = max(point["answers"] / point["seconds"] for point in report["points"] if point["system"] != "aiohttp")
    report["simulator"]["most_asked_per_second"] = most
    report["aims"] = aims(report["summary"])
    report["all_parities_hold"] = all(point["parity"]["holds"] for point in report["points"])
    return report


def _ceiling(bench: Bench) -> Json:
    with closing(Plain(bench, "aiohttp", bench.run.environment["OPENAI_BASE_URL"])) as floor:
        floor.closed(*WARM_UP)
        point = floor.closed(*CEILING)
    rate = point.answers / point.seconds
    return {"calls_per_second": rate, "calls_per_cpu_second": point.answers / point.simulator_cpu}


def _loads(system: System, concurrent: list[int], turns: int) -> Iterator[tuple[str, Callable[[], Point]]]:
    most = 0.0

    def closed(at_once: int) -> Point:
        nonlocal most
        point = system.closed(max(LEAST_REQUESTS, turns * at_once), at_once)
        most = max(most, point.answers / point.seconds)
        return point

    for at_once in concurrent:
        yield f"{at_once} at once", lambda at_once=at_once: closed(at_once)
    yield "half", lambda: system.opened(most / 2, STEADY_SECONDS)


def _json(name: str, number: int, load: str, point: Point) -> Json:
    return {
        "system": name, "round": number, "load": load, "load_average": round(os.getloadavg()[0], 2), **asdict(point)
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
