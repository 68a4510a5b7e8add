"""Does an answered request cost the same when there is more of everything? `python -m benchmarks.scaling`

Four series, each over one running pipeline: the length of a backlog, the number of tenants, the size of a prompt, and the number
of `complete` processes. Prints tables, writes `benchmarks/results/scaling.json`; exit status 1 when anything was lost.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table

from benchmarks.figures import spread
from benchmarks.load import Shape
from benchmarks.machine import machine, versions
from benchmarks.report import bar, progress, span, table
from benchmarks.rounds import OURS, Bench, Round, as_json, is_ours
from benchmarks.storage import each, stored
from cli.running import Running, running

RESULTS = Path(__file__).parent / "results" / "scaling.json"
#: A cost may grow by this over a whole series and still count as flat.
FLAT = 1.1
BACKLOGS = (1_000, 10_000, 100_000, 1_000_000)
REQUESTS = 3_000
WARM_UP = 1_000
#: Prompts of a megabyte are beyond what a deployment allows unless told to.
ENVIRONMENT = {"MILLSTREAM_MAX_REQUEST_BYTES": "2000000"}
#: With calls of 2 s and 100 of them at once, a process answers 50 a second, however many cores there are.
SLOW = Shape(directive=' [[sim {"latency_ms": 2000}]]')
NARROW = {"MILLSTREAM_LANE_CONCURRENCY": "100"}
SLOW_REQUESTS = {1: 600, 2: 1_200}

Json = dict[str, Any]


@dataclass(frozen=True)
class Series:
    """Points of one kind: what is varied, over which values, and how one of them is measured."""

    name: str
    values: tuple[int, ...]
    measure: Callable[[Bench, int], Round]


PROMPT_REQUESTS = {1_000: 3_000, 10_000: 2_000, 100_000: 600, 1_000_000: 100}
BACKLOG = Series("requests in the backlog", BACKLOGS, lambda bench, count: bench.backlog(count))
SERIES = (
    Series("tenants", (1, 1_000), lambda bench, count: bench.backlog(REQUESTS, Shape(tenants=count))),
    Series(
        "characters of a prompt", tuple(PROMPT_REQUESTS),
        lambda bench, size: bench.backlog(PROMPT_REQUESTS[size], Shape(prompt_characters=size)),
    ),
)  # fmt: skip
FULL_SPEED = Series("complete processes, all cores", (1, 2), lambda bench, _: bench.backlog(REQUESTS))
BOUNDED = Series(
    "complete processes, 100 calls of 2 s at once in each", (1, 2),
    lambda bench, count: bench.backlog(SLOW_REQUESTS[count], SLOW),
)  # fmt: skip


def main() -> int:
    """Measure, print and write down."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=3, help="times to measure each (default: %(default)s)")
    parser.add_argument(
        "--backlog", type=int, choices=BACKLOGS, default=100_000,
        help="the longest backlog (default: %(default)s); a million takes most of an hour",
    )  # fmt: skip
    parser.add_argument("--results", type=Path, default=RESULTS, help="where to write (default: %(default)s)")
    arguments = parser.parse_args()
    console = Console()
    with (
        progress(console, "Starting the local stack ...") as say,
        running(environment=ENVIRONMENT, progress=say) as run,
        closing(Bench(run)) as bench,
    ):
        bench.backlog(WARM_UP)
        report = _report(bench, arguments)
        for series, value, number, one in _measured(run, bench, report, arguments.backlog):
            report["points"].append(_point(series, value, number, one))
            say(f"{series}: {value:,}, round {number}: {one.ours_ms:.2f} ms, {one.load.per_second:.0f} answers/s")
    report["summary"] = _summary(report["points"])
    for made in _tables(report):
        console.print(made)
    arguments.results.parent.mkdir(exist_ok=True)
    arguments.results.write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2) + b"\n")
    console.print(f"Written to {arguments.results}.")
    if not all(point["parity"]["holds"] for point in report["points"]):
        print("Something was lost or counted twice: see the parities above.", file=sys.stderr)
        return 1
    return 0


def _report(bench: Bench, arguments: argparse.Namespace) -> Json:
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {**machine(), "load_before": round(os.getloadavg()[0], 2)},
        "versions": versions(str(bench.clickhouse.query("SELECT version()").result_rows[0][0])),
        "settings": {"rounds": arguments.rounds, "simulator_ms": 50},
        "points": [],
    }


def _measured(run: Running, bench: Bench, report: Json, longest: int) -> Iterator[tuple[str, int, int, Round]]:
    before, backlogs = stored(bench), [count for count in BACKLOGS if count <= longest]
    for count in backlogs:
        yield BACKLOG.name, count, 1, BACKLOG.measure(bench, count)
    report["bytes_per_request"] = each(before, stored(bench), sum(backlogs))
    rounds = report["settings"]["rounds"]
    for series in SERIES:
        for number in range(1, rounds + 1):
            for value in series.values if number % 2 else reversed(series.values):
                yield series.name, value, number, series.measure(bench, value)
    yield from _workers(run, bench, FULL_SPEED, {}, rounds)
    yield from _workers(run, bench, BOUNDED, NARROW, rounds)


def _workers(
    run: Running, bench: Bench, series: Series, settings: dict[str, str], rounds: int
) -> Iterator[tuple[str, int, int, Round]]:
    """The series with one and then two `complete` processes on the lane; the two are left running."""
    for name in [name for name in run.workers if name.startswith("complete")]:
        run.workers.pop(name).stop()
    for count in series.values:
        name = "complete" if count == 1 else f"complete-{count}"
        run.start_worker(name, ["worker", "complete", "--provider", "openai"], settings)
        run.wait_ready(name, 1)
        bench.backlog(WARM_UP)
        for number in range(1, rounds + 1):
            yield series.name, count, number, series.measure(bench, count)


def _point(series: str, value: int, number: int, one: Round) -> Json:
    others = one.cost.others / one.cost.seconds
    return {
        "series": series, "value": value, "round": number,
        "answers_per_second": one.load.per_second,
        "cpu_ms": one.ours_ms,
        "cpu_ms_by_process": {name: one.cpu_ms(name) for name in one.cost.cpu},
        "memory_mib": sum(size for name, size in one.memory.items() if is_ours(name)) / 2**20,
        "memory_mib_by_process": {name: size / 2**20 for name, size in one.memory.items()},
        "cores_used_by_others": others, "load_average": round(os.getloadavg()[0], 2), "parity": as_json(one.parity),
    }  # fmt: skip


FIGURES = ("answers_per_second", "cpu_ms", "memory_mib", "cores_used_by_others", "load_average")


def _summary(points: list[Json]) -> list[Json]:
    """One entry a series and value, with what its cost is to that of the series' first value."""
    found: list[Json] = []
    for series, value in sorted({(point["series"], point["value"]) for point in points}):
        mine = [point for point in points if (point["series"], point["value"]) == (series, value)]
        figures = {name: spread([point[name] for point in mine]) for name in FIGURES}
        first = next((entry for entry in found if entry["series"] == series), None)
        base = first["cpu_ms"]["median"] if first else figures["cpu_ms"]["median"]
        held = all(point["parity"]["holds"] for point in mine)
        ratio = figures["cpu_ms"]["median"] / base
        found.append({"series": series, "value": value, **figures, "cpu_to_first": ratio, "parity_holds": held})
    return found


def _tables(report: Json) -> Iterator[Table]:
    for series in dict.fromkeys(entry["series"] for entry in report["summary"]):
        entries = [entry for entry in report["summary"] if entry["series"] == series]
        yield _series(series, entries)
    yield _processes(report)
    yield _bytes(report)


def _series(series: str, entries: list[Json]) -> Table:
    made = table(
        f"{series}: CPU ms per answer, our processes",
        (series, "CPU ms", "least to most", "", "to the first", "answers/s", "MiB", "load", "parity"), "rrrlrrrrl",
    )  # fmt: skip
    most = max(entry["cpu_ms"]["median"] for entry in entries)
    for entry in entries:
        cost, ratio = entry["cpu_ms"], entry["cpu_to_first"]
        colour = "green" if ratio <= FLAT else "yellow"
        made.add_row(
            f"{entry['value']:,}", f"{cost['median']:.2f}", span(cost, 2), bar(cost["median"], most, colour),
            f"{ratio:.2f}", f"{entry['answers_per_second']['median']:,.0f}", f"{entry['memory_mib']['median']:,.0f}",
            f"{entry['load_average']['median']:.1f}", "holds" if entry["parity_holds"] else "[bold red]BROKEN[/]",
        )  # fmt: skip
    return made


def _processes(report: Json) -> Table:
    """Where the CPU of the last round of each point went."""
    names = (*OURS, "kafka", "clickhouse")
    made = table("CPU ms per answer by process, last round", ("", "", *names), "lr" + "r" * len(names))
    last = {(point["series"], point["value"]): point["cpu_ms_by_process"] for point in report["points"]}
    for (series, value), cpu in last.items():
        sums = (sum(ms for name, ms in cpu.items() if name.partition("-")[0] == wanted) for wanted in names)
        made.add_row(series, f"{value:,}", *(f"{ms:.2f}" for ms in sums))
    return made


def _bytes(report: Json) -> Table:
    made = table("Bytes that a request leaves behind", ("place", "bytes"), "lr")
    for place, size in report["bytes_per_request"].items():
        made.add_row(place, f"{size:,.0f}")
    return made


if __name__ == "__main__":
    sys.exit(main())
