"""The soak's results as a picture in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from statistics import mean
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from benchmarks.rounds import OURS
from cli.amounts import columns, spark

LINES = 6
LABEL = 12
TREND = 15
MIB = 2**20

Json = dict[str, Any]


def picture(report: Json, width: int) -> Iterator[RenderableType]:
    """Every part, in reading order."""
    asked, parity = report["settings"], report["parity"]
    yield Text(
        f"{asked['seconds'] / 60:g} minutes at {asked['requests_per_second']:g} requests a second, "
        f"{report['requests_per_second_sent']:.1f} sent; one column is {asked['stretch_seconds']:g} s",
        style="bold",
    )
    for quantile in ("p50", "p99"):
        yield _plot(f"{quantile}, ms", [each[quantile] if each else 0.0 for each in report["latency_ms"]], width)
    yield _processes(report)
    yield _growth(report)
    counts = (
        f"{name.replace('_', ' ')} {parity[name]:,}" for name in ("sent", "answers", "usage_rows", "provider_calls")
    )
    verdict = "[green]holds[/]" if parity["holds"] else "[bold red]BROKEN[/]"
    yield f"Parity: {', '.join(counts)}, open in the ledger {parity['open']}: {verdict}"
    broken = [name for name, line in report["reconcile"].items() if line["status"] == "BROKEN"]
    held = sum(line["status"] == "holds" for line in report["reconcile"].values())
    yield f"Reconcile: {held} lines hold" + (f", [bold red]BROKEN: {', '.join(broken)}[/]" if broken else "")


def _plot(name: str, values: Sequence[float], width: int) -> Text:
    wide = max(1, min(4, (width - LABEL - 2) // max(1, len(values))))
    most = max(values, default=0.0)
    text = Text()
    for number, line in enumerate(columns([value for value in values for _ in range(wide)], LINES)):
        label = f"{most:,.0f} {name}" if number == 0 else "0" if number == LINES - 1 else ""
        text.append(f"{label:>{LABEL}} ", "dim").append(line + "\n", "green")
    return text


def _processes(report: Json) -> Table:
    table = Table(title="Every process over the time, columns from 0", title_justify="left", title_style="bold")
    for name in ("process", "memory", "MiB, from to", "descriptors", "from to"):
        table.add_column(name, no_wrap=True, justify="right" if name.endswith("to") else "left")
    for name, one in sorted(report["processes"].items(), key=lambda item: item[0] not in OURS):
        if table.row_count == len(OURS):
            table.add_section()
        memory, descriptors = one["memory_bytes"], one["descriptors"]
        table.add_row(
            name, Text(_trend(memory), "green"), f"{memory[0] / MIB:.0f} {memory[-1] / MIB:.0f}",
            Text(_trend(descriptors), "cyan"), f"{descriptors[0]:.0f} {descriptors[-1]:.0f}",
        )  # fmt: skip
    return table


def _trend(values: Sequence[float]) -> str:
    wide = min(TREND, len(values))
    cuts = [len(values) * number // wide for number in range(wide + 1)]
    return spark([mean(values[begin:end]) for begin, end in pairwise(cuts)], wide)


def _growth(report: Json) -> Table:
    table = Table(title="Growth in the two halves after the warm-up", title_justify="left", title_style="bold")
    for name in ("", "first half", "second half", "allowed in each", ""):
        table.add_column(name, justify="right" if name else "left")
    for name, one in report["growth"].items():
        unit, scale = ("", 1)
        if name.endswith("in bytes"):
            name, unit, scale = name.removesuffix(" in bytes"), " MiB", MIB
        figures = (f"{one[part] / scale:+,.1f}{unit}" for part in ("first", "second", "limit"))
        table.add_row(name, *figures, "[bold red]GROWS[/]" if one["grows"] else "[green]flat[/]")
    return table
