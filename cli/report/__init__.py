"""`millstream report`: what the calls cost, how many failed, how long they took, in the terminal or as a page."""

from __future__ import annotations

import argparse
import sys
import time

from cli.errors import CommandError
from cli.report.figures import DIMENSIONS
from cli.report.window import parse_since
from cli.stackfile import stack_settings

FORMATS = ("table", "json", "csv", "html")


def describe(parser: argparse.ArgumentParser) -> None:
    """Which calls, grouped by what, written how."""
    parser.add_argument("--by", choices=DIMENSIONS, default="tenant", help="what to group by (default: %(default)s)")
    parser.add_argument(
        "--since", default="7d", metavar="TIME",
        help="requests made since then: 90m, 24h, 7d, 4w ago, or a UTC date or time such as 2026-11-01 (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--tenant", metavar="NAME", help="only this tenant")
    parser.add_argument(
        "--limit", type=int, default=20, metavar="N", help="at most so many groups; 0 shows all (default: %(default)s)"
    )
    parser.add_argument("--format", choices=FORMATS, default="table", help="default: %(default)s")


def run(arguments: argparse.Namespace) -> int:
    """Ask ClickHouse and print the report."""
    from cli.report.queries import gather
    from sinks.query import QueryFailed, Store

    if arguments.limit < 0:
        raise CommandError(f"--limit {arguments.limit} is below 0; give a number of groups, or 0 for all.")
    window = parse_since(arguments.since, time.time_ns() // 1_000)
    store = Store(stack_settings())
    try:
        report = gather(store, window, arguments.by, arguments.tenant, arguments.limit)
    except QueryFailed as why:
        raise CommandError(str(why)) from None
    finally:
        store.close()
    if arguments.format == "table":
        from rich.console import Console

        from cli.report.table import draw

        console = Console()
        for part in draw(report, console.width):
            console.print(part)
        return 0
    if arguments.format == "html":
        from cli.report.html import page

        sys.stdout.write(page(report))
        return 0
    from cli.report.machine import as_csv, as_json

    sys.stdout.write((as_json if arguments.format == "json" else as_csv)(report))
    return 0
