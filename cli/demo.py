"""`millstream demo`: 300 requests through a local stack, the analytics in SQL, and the proof that nothing was lost."""

from __future__ import annotations

import argparse
import json
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from cli import kafka
from cli.errors import CommandError
from cli.exchange import Exchange
from cli.lines import new_id, request_of, usd
from cli.running import Running, running
from core.topics import USAGE
from sinks.writer import connect

REQUESTS_FILE = Path(__file__).parent / "demo.jsonl"
ANSWER_SECONDS = 30.0
SINK_SECONDS = 30.0

#: The demo's retries need not be patient: its provider recovers at once or never.
DEMO_SETTINGS = {"MILLSTREAM_BACKOFF_BASE_SECONDS": "0.2", "MILLSTREAM_SINK_BATCH_SECONDS": "0.3"}


@dataclass(frozen=True)
class Line:
    """One line of the conservation table: amounts that have to be equal."""

    what: str
    amounts: dict[str, int]

    @property
    def holds(self) -> bool:
        """Whether all amounts are the same."""
        return len(set(self.amounts.values())) == 1


def describe(parser: argparse.ArgumentParser) -> None:
    """Which requests to send."""
    parser.add_argument(
        "--file",
        default=str(REQUESTS_FILE),
        metavar="PATH",
        help="requests as JSON lines (default: the 300 shipped ones)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the demo; 1 when a line of the conservation table does not hold."""
    console = Console()
    status = console.status("Starting the local stack ...")
    status.start()
    try:
        with running(environment=DEMO_SETTINGS, progress=lambda line: status.update(line)) as demo:
            status.stop()
            sent = _send(Path(arguments.file), demo, console)
            lines = _when_the_sink_is_through(demo, sent)
            for table in _report(demo):
                console.print(table)
            console.print(_conservation(lines))
    finally:
        status.stop()
    broken = [line.what for line in lines if not line.holds]
    if broken:
        print(f"Not conserved: {'; '.join(broken)}.", file=sys.stderr)
        return 1
    console.print("[bold green]Nothing lost, nothing counted twice.[/]")
    return 0


def _send(path: Path, demo: Running, console: Console) -> int:
    """Send every line of the file and wait for the answers; how many records were sent."""
    exchange = Exchange(demo.settings)
    ids = []
    raw = 0
    for number, text in enumerate(path.read_text("utf-8").splitlines(), 1):
        line = json.loads(text)
        if "raw" in line:
            exchange.send_bytes(None, line["raw"].encode(), [])
            raw += 1
            continue
        request = request_of({"request_id": new_id(), **line}, {}, f"Line {number} of {path}")
        ids.append(request["request_id"])
        exchange.send(request)
    exchange.flush()
    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=console) as bar:
        task = bar.add_task(f"{len(ids) + raw} requests sent, answered", total=len(ids))
        exchange.answers(ids, ANSWER_SECONDS, lambda _: bar.advance(task))
    exchange.close()
    return len(ids) + raw


def _when_the_sink_is_through(demo: Running, sent: int) -> list[Line]:
    """The conservation table, taken when it holds or when the sink has had time enough."""
    ends = time.monotonic() + SINK_SECONDS
    while True:
        lines = _lines(demo, sent)
        if all(line.holds for line in lines) or time.monotonic() > ends:
            return lines
        time.sleep(0.3)


def _lines(demo: Running, sent: int) -> list[Line]:
    answers = _number(demo, "SELECT count() FROM responses")
    dead = _number(demo, "SELECT count() FROM dead_letters")
    rows = _number(demo, "SELECT count() FROM usage")
    events = kafka.count(demo.settings, USAGE)
    cost = _number(demo, "SELECT sum(cost_nano_usd) FROM usage")
    simulator = _simulator(demo)
    return [
        Line("requests sent = answers + dead letters", {"sent": sent, "answers + dead letters": answers + dead}),
        Line("provider calls = usage events = usage rows",
             {"simulator": simulator["calls"], "usage events": events, "usage rows": rows}),
        Line("cost at the provider = cost of the usage rows (nano-USD)",
             {"simulator": simulator["cost_nano_usd"], "usage rows": cost}),
    ]  # fmt: skip


def _simulator(demo: Running) -> dict[str, int]:
    """The simulator's own account, over all its providers."""
    if demo.stack.simulator_url is None:
        raise CommandError("The demo needs the provider simulator; it runs only on the local stack.")
    with urllib.request.urlopen(f"{demo.stack.simulator_url}/_sim/ledger", timeout=10) as answer:
        total: dict[str, int] = json.load(answer)["overall"]
    return total


def _query(demo: Running, sql: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in connect(demo.settings).query(sql).result_rows]


def _number(demo: Running, sql: str) -> int:
    return int(_query(demo, sql)[0][0] or 0)


def _report(demo: Running) -> Iterator[Table]:
    yield _table("Answers by outcome", ("outcome", "error", "answers"), _query(
        demo, "SELECT outcome, error_code, count() FROM responses GROUP BY 1, 2 ORDER BY 3 DESC, 2"))  # fmt: skip
    for by in ("tenant", "model"):
        rows = _query(demo, f"""
            SELECT {by}, count(), countIf(status != 'succeeded'), sum(cost_nano_usd), countIf(cost_status = 'unpriced')
            FROM usage GROUP BY 1 ORDER BY 4 DESC""")  # noqa: S608  # fmt: skip
        priced = [(name, calls, failed, usd(cost), unpriced) for name, calls, failed, cost, unpriced in rows]
        yield _table(f"Cost by {by}", (by, "calls", "failed", "cost", "unpriced"), priced)
    yield _latency(_query(demo, """
        SELECT provider, count(), quantilesExact(0.5, 0.95, 0.99)(provider_us / 1000) FROM usage
        WHERE status = 'succeeded' GROUP BY 1 ORDER BY 1"""))  # fmt: skip
    classes = (
        "input_uncached",
        "cache_read",
        "cache_write_5m",
        "cache_write_1h",
        "input_audio",
        "output_text",
        "reasoning",
        "output_audio",
    )
    sums = ", ".join(f"sum(tokens_{name})" for name in classes)
    counts = _query(demo, f"SELECT {sums} FROM usage")[0]  # noqa: S608
    yield _table(
        "Tokens by class", ("class", "tokens"), [(n, c) for n, c in zip(classes, counts, strict=True) if c is not None]
    )


def _table(title: str, columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        right = bool(rows) and not isinstance(rows[0][number], str)
        table.add_column(column, justify="right" if right else "left")
    for row in rows:
        table.add_row(*(f"{value:,}" if isinstance(value, int) else str(value) for value in row))
    return table


def _latency(rows: list[tuple[Any, ...]]) -> Table:
    """Percentiles by provider, each with a bar on one common scale."""
    table = Table(title="Provider latency", title_justify="left", title_style="bold")
    for column in ("provider", "calls", "", "ms", ""):
        table.add_column(column, justify="right" if column in ("calls", "ms") else "left")
    longest = max((values[-1] for _, _, values in rows), default=1.0)
    for provider, calls, values in rows:
        for number, (name, value) in enumerate(zip(("p50", "p95", "p99"), values, strict=True)):
            bar = "█" * max(1, round(30 * value / longest))
            table.add_row(
                provider if not number else "", f"{calls:,}" if not number else "", name, f"{value:,.0f}", bar
            )
    return table


def _conservation(lines: list[Line]) -> Table:
    table = Table(title="Conservation", title_justify="left", title_style="bold")
    for column in ("", "amounts", ""):
        table.add_column(column)
    for line in lines:
        amounts = "\n".join(f"{name} {amount:,}" for name, amount in line.amounts.items())
        table.add_row(line.what, amounts, "[green]holds[/]" if line.holds else "[bold red]BROKEN[/]")
    return table
