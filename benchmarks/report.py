"""The benchmark's results as tables for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.rounds import OURS

BAR = 16
MOST_CPU_RATIO = 3.0
LEAST_PER_CORE = 0.5

Json = dict[str, Any]


def tables(report: Json) -> Iterator[Table]:
    """Every table of the report, in reading order."""
    yield _aims(report)
    yield _cpu(report)
    yield _latency(report)
    yield _memory(report)
    yield _parities(report)


def _aims(report: Json) -> Table:
    found, machine = report["summary"], report["machine"]
    others = [one[part]["cores_used_by_others"] for one in report["rounds"] for part in ("closed", "steady")]
    made = table(
        f"{machine['cores']} cores, simulator at {report['settings']['simulator_ms']} ms, "
        f"{report['settings']['rounds']} rounds, other programs on up to {max(others):.2f} cores",
        ("", "median", "least to most", "aim"), "lrrl",
    )  # fmt: skip
    rows = (
        ("answered requests per second", "answers_per_second", 0, ""),
        ("bare loop, calls per second", "bare_calls_per_second", 0, ""),
        ("both, ours / bare", "wall_ratio", 2, ""),
        ("CPU ms per answer, ours", "cpu_ms_per_answer_ours", 2, ""),
        ("CPU ms per call, bare loop", "bare_cpu_ms_per_call", 2, ""),
        ("CPU, ours / bare", "cpu_ratio", 2, f"≤ {MOST_CPU_RATIO:g}"),
        ("answers per CPU second, ours", "answers_per_second_and_core", 0, ""),
        ("calls per CPU second, bare", "bare_calls_per_second_and_core", 0, ""),
        ("per core, ours / bare", "per_core_ratio", 2, f"≥ {LEAST_PER_CORE:g}"),
    )
    for name, key, digits, aim in rows:
        met = {
            "cpu_ratio": found[key]["median"] <= MOST_CPU_RATIO,
            "per_core_ratio": found[key]["median"] >= LEAST_PER_CORE,
        }
        if key in met:
            aim += "  [green]met[/]" if met[key] else "  [red]not met[/]"
        made.add_row(name, f"{found[key]['median']:,.{digits}f}", span(found[key], digits), aim)
    return made


def _cpu(report: Json) -> Table:
    found = report["summary"]
    made = table(
        "CPU ms per answered request at full speed; at rest, CPU ms per second",
        ("process", "median", "least to most", "", "at rest"),
        "lrrlr",
    )
    shares = found["cpu_ms_per_answer"]
    most = max(share["median"] for share in [*shares.values(), found["bare_cpu_ms_per_call"]])
    for name in sorted(shares, key=lambda name: name not in OURS):
        if made.row_count == len(OURS):
            made.add_section()
        colour = "green" if name in OURS else "white"
        drawn = bar(shares[name]["median"], most, colour)
        rest = f"{report['idle_cpu_ms_per_second'][name]:.0f}"
        made.add_row(name, f"{shares[name]['median']:.2f}", span(shares[name], 2), drawn, rest)
    bare = found["bare_cpu_ms_per_call"]
    made.add_section()
    made.add_row("bare SDK loop", f"{bare['median']:.2f}", span(bare, 2), bar(bare["median"], most, "yellow"), "")
    return made


def _latency(report: Json) -> Table:
    found = report["summary"]
    made = table(
        f"Added latency at {found['steady_rate']['median']:.0f} requests per second, ms (* less the provider's own time)",
        ("", "p50", "p99", ""), "lrrl",
    )  # fmt: skip
    most = max(step["p99"]["median"] for step in found["added_ms"].values())
    for step, value in found["added_ms"].items():
        drawn = bar(value["p50"]["median"], most, "green", value["p99"]["median"])
        made.add_row(step, _with_range(value["p50"]), _with_range(value["p99"]), drawn)
    return made


def _memory(report: Json) -> Table:
    memory = report["summary"]["memory_bytes"]
    made = table("Resident memory after the last backlog, MiB", ("process", "MiB", ""), "lrl")
    most = max(memory.values())
    for name, size in sorted(memory.items(), key=lambda item: item[0] not in OURS):
        made.add_row(name, f"{size / 2**20:.0f}", bar(size, most, "green" if name in OURS else "white"))
    if slow := report.get("long_calls"):
        made.add_section()
        seconds = slow["call_ms"] / 1_000
        most = max(size for _, size, _ in slow["samples"])
        for at, size, in_flight in slow["samples"][:: max(1, len(slow["samples"]) // 10)]:
            name = f"calls of {seconds:g} s, at {at:.0f} s: {in_flight:,} in flight"
            made.add_row(name, f"{size / 2**20:.0f}", bar(size, most, "green"))
        early, late = slow["memory_bytes_early_while_full"], slow["memory_bytes_late_while_full"]
        made.add_section()
        made.add_row(
            f"most in flight {slow['max_in_flight']:,}; at first", f"{early / 2**20:.0f}", bar(early, most, "green")
        )
        made.add_row("and at last", f"{late / 2**20:.0f}", bar(late, most, "green"))
    return made


def _parities(report: Json) -> Table:
    made = table(
        "Parity: requests = answers = usage rows = simulator's calls; open in the ledger",
        ("", "per second", "requests", "answers", "rows", "calls", "open", ""), "lrrrrrrl",
    )  # fmt: skip
    parts = (
        ("bare", "bare", "calls_per_second"),
        ("closed", "backlog", "answers_per_second"),
        ("steady", "steady", "requests_per_second"),
    )
    lines = [
        (f"{word} {number}", one[part][rate], one[part]["parity"])
        for number, one in enumerate(report["rounds"], 1)
        for part, word, rate in parts
    ]
    if slow := report.get("long_calls"):
        lines.append(("calls of 2 s", slow["answers_per_second"], slow["parity"]))
    for name, rate, parity in lines:
        counts = (parity.get(key) for key in ("sent", "answers", "usage_rows", "provider_calls", "open"))
        verdict = "[green]holds[/]" if parity["holds"] else "[bold red]BROKEN[/]"
        made.add_row(name, f"{rate:,.0f}", *("–" if count is None else f"{count:,}" for count in counts), verdict)
    return made


@contextmanager
def progress(console: Console, first: str) -> Iterator[Callable[[str], None]]:
    """A function that shows what is being done: in place on a terminal, else line by line."""
    if console.is_terminal:
        with console.status(first) as status:
            yield status.update
    else:
        console.print(first)
        yield lambda line: console.print(f"{datetime.now(UTC):%H:%M:%S} {line}")


def table(title: str, columns: tuple[str, ...], sides: str) -> Table:
    """An empty table; `sides` has an l or an r for each column."""
    made = Table(title=title, title_justify="left", title_style="bold")
    for column, side in zip(columns, sides, strict=True):
        made.add_column(column, justify="right" if side == "r" else "left")
    return made


def span(values: Json, digits: int) -> str:
    """The least and the most of a measurement's rounds."""
    return f"{values['least']:,.{digits}f} – {values['most']:,.{digits}f}"


def _with_range(values: Json) -> str:
    digits = 0 if values["median"] >= 10 else 1
    return f"{values['median']:,.{digits}f} ({values['least']:,.{digits}f}–{values['most']:,.{digits}f})"


def bar(value: float, most: float, colour: str, further: float = 0.0) -> str:
    """A bar for `value`, and on to `further` in a lighter shade, on a scale that ends at `most`."""
    full = max(1, round(BAR * value / most)) if most else 0
    light = max(0, round(BAR * further / most) - full) if most else 0
    return f"[{colour}]{'█' * full}{'░' * light}[/]"
