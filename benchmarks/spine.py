"""What an answered request costs on its way through the whole pipeline, beside a bare loop over the provider's SDK.

`python -m benchmarks.spine` starts the local stack and four worker processes, and measures in turn, several times over: the
bare loop, a backlog worked off at full speed, and a steady rate of half that speed. Then it puts 2,000 slow calls in flight
in one `complete` process. It prints tables and writes `benchmarks/results/spine.json`. Exit status 1 when anything was lost.
"""

from __future__ import annotations

import argparse
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console

from benchmarks.bare import Caller
from benchmarks.figures import percentiles, spread
from benchmarks.long_calls import CALL_MS, IN_FLIGHT, LongCalls, long_calls
from benchmarks.machine import machine, versions
from benchmarks.report import progress, tables
from benchmarks.rounds import Bench, Round, added_ms, as_json
from cli.running import Running, running

RESULTS = Path(__file__).parent / "results" / "spine.json"
CONCURRENT = 256
SIMULATOR_MS = 50
STEADY_SECONDS = 8.0
IDLE_SECONDS = 3.0
WARM_UP = 1_000
BARE_WARM_UP = 200
WAVES = 4

Json = dict[str, Any]


def main() -> int:
    """Measure, print and write down."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.spine", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--requests", type=_count, default=3_000, help="requests in a backlog (default: %(default)s)")
    parser.add_argument("--rounds", type=_count, default=3, help="times to measure each (default: %(default)s)")
    parser.add_argument("--no-long-calls", action="store_true", help="leave out the 2,000 calls in flight")
    arguments = parser.parse_args()
    console = Console()
    environment = {"MILLSTREAM_LANE_CONCURRENCY": str(CONCURRENT)}
    with (
        progress(console, "Starting the local stack ...") as say,
        running(environment=environment, progress=say) as run,
    ):
        report = _measure(run, arguments, say)
    for table in tables(report):
        console.print(table)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2) + b"\n")
    console.print(f"Written to {RESULTS.relative_to(Path(__file__).parent.parent)}.")
    if not report["all_parities_hold"]:
        print("Something was lost or counted twice: see the parities above.", file=sys.stderr)
        return 1
    return 0


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} must be at least 1")
    return number


def _measure(run: Running, arguments: argparse.Namespace, say: Any) -> Json:
    bench = Bench(run)
    report: Json = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {**machine(), "load_before": round(os.getloadavg()[0], 2)},
        "versions": versions(str(bench.clickhouse.query("SELECT version()").result_rows[0][0])),
        "settings": {
            "requests": arguments.requests, "rounds": arguments.rounds, "concurrent": CONCURRENT,
            "simulator_ms": SIMULATOR_MS, "steady_seconds": STEADY_SECONDS,
        },
    }  # fmt: skip
    say("Warming up ...")
    caller = Caller("openai", run.environment["OPENAI_BASE_URL"])
    caller.closed(BARE_WARM_UP, CONCURRENT)
    bench.backlog(WARM_UP)
    idle = bench.idle(IDLE_SECONDS)
    report["idle_cpu_ms_per_second"] = {name: cpu / idle.seconds * 1_000 for name, cpu in idle.cpu.items()}
    report["rounds"] = []
    for number in range(1, arguments.rounds + 1):
        say(f"Round {number} of {arguments.rounds}: the bare loop ...")
        bare = bench.bare(caller, arguments.requests, CONCURRENT)
        say(f"Round {number} of {arguments.rounds}: a backlog of {arguments.requests} requests ...")
        closed = bench.backlog(arguments.requests)
        rate = closed.load.per_second / 2
        say(f"Round {number} of {arguments.rounds}: {rate:.0f} requests per second ...")
        steady = bench.opened(rate, STEADY_SECONDS)
        report["rounds"].append(_round(bench, bare, closed, steady, rate))
    if not arguments.no_long_calls:
        say(f"{IN_FLIGHT:,} calls of {CALL_MS / 1_000:g} s in flight ...")
        report["long_calls"] = _long_calls(long_calls(bench, WAVES))
    caller.close()
    bench.close()
    report["summary"] = _summary(report["rounds"])
    parities = [one[part]["parity"] for one in report["rounds"] for part in ("bare", "closed", "steady")]
    parities += [report["long_calls"]["parity"]] if "long_calls" in report else []
    report["all_parities_hold"] = all(parity["holds"] for parity in parities)
    return report


def _round(bench: Bench, bare: Json, closed: Round, steady: Round, rate: float) -> Json:
    added = added_ms(steady.load, bench.provider_us())
    return {
        "bare": bare,
        "closed": {"answers_per_second": closed.load.per_second, **_cost(closed)},
        "steady": {
            "requests_per_second": rate, **_cost(steady),
            "added_ms": {step: percentiles(values) for step, values in added.items()},
        },
    }  # fmt: skip


def _cost(one: Round) -> Json:
    return {
        "seconds": one.cost.seconds,
        "cpu_ms_per_answer": {name: one.cpu_ms(name) for name in one.cost.cpu},
        "cpu_ms_per_answer_ours": one.ours_ms,
        "cores_used_by_others": one.cost.others / one.cost.seconds,
        "memory_bytes": one.memory,
        "parity": as_json(one.parity),
    }


def _long_calls(found: LongCalls) -> Json:
    early, late = found.memory_while_full()
    return {
        "max_in_flight": found.max_in_flight,
        "call_ms": CALL_MS,
        "answers_per_second": found.load.per_second,
        "memory_bytes_early_while_full": early,
        "memory_bytes_late_while_full": late,
        "memory_bytes_most": max(sample.memory for sample in found.samples),
        "samples": [[round(s.at, 2), s.memory, s.in_flight] for s in found.samples],
        "parity": as_json(found.parity),
    }


def _summary(rounds: list[Json]) -> Json:
    ours = [one["closed"]["cpu_ms_per_answer_ours"] for one in rounds]
    bare = [one["bare"]["cpu_ms_per_call"] for one in rounds]
    rate = [one["closed"]["answers_per_second"] for one in rounds]
    bare_rate = [one["bare"]["calls_per_second"] for one in rounds]
    added = [one["steady"]["added_ms"] for one in rounds]
    return {
        "answers_per_second": spread(rate),
        "bare_calls_per_second": spread(bare_rate),
        "cpu_ms_per_answer": {
            name: spread([one["closed"]["cpu_ms_per_answer"][name] for one in rounds])
            for name in rounds[0]["closed"]["cpu_ms_per_answer"]
        },
        "cpu_ms_per_answer_ours": spread(ours),
        "cpu_ms_per_answer_ours_steady": spread([one["steady"]["cpu_ms_per_answer_ours"] for one in rounds]),
        "bare_cpu_ms_per_call": spread(bare),
        "cpu_ratio": spread([a / b for a, b in zip(ours, bare, strict=True)]),
        "answers_per_second_and_core": spread([1_000 / a for a in ours]),
        "bare_calls_per_second_and_core": spread([1_000 / b for b in bare]),
        "per_core_ratio": spread([b / a for a, b in zip(ours, bare, strict=True)]),
        "wall_ratio": spread([a / b for a, b in zip(rate, bare_rate, strict=True)]),
        "steady_rate": spread([one["steady"]["requests_per_second"] for one in rounds]),
        "added_ms": {
            step: {name: spread([one[step][name] for one in added]) for name in ("p50", "p99")} for step in added[0]
        },
        "memory_bytes": rounds[-1]["closed"]["memory_bytes"],
    }


if __name__ == "__main__":
    sys.exit(main())
