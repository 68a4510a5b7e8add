"""`millstream chaos`: a local stack under load and seeded faults, and the proof that nothing was lost or doubled."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cli.errors import CommandError


def describe(parser: argparse.ArgumentParser) -> None:
    """How much load, which faults, and where to write what came of it."""
    parser.add_argument(
        "--requests", type=int, default=20_000, metavar="N", help="requests to publish (default: %(default)s)"
    )
    parser.add_argument(
        "--rate",
        type=float,
        default=300.0,
        metavar="N",
        help="requests a second, kept whatever happens (default: %(default)g)",
    )
    parser.add_argument(
        "--faults",
        default="all",
        metavar="NAMES",
        help="fault names with commas between, or all (default); --list-faults shows them",
    )
    parser.add_argument(
        "--every",
        type=float,
        default=2.0,
        metavar="SECONDS",
        help="mean time from one fault to the next (default: %(default)g)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=7,
        metavar="N",
        help="the same seed strikes the same things at the same times (default: %(default)s)",
    )
    parser.add_argument(
        "--database",
        choices=("sqlite", "postgresql"),
        default="sqlite",
        help="where the ledger is (default: %(default)s)",
    )
    parser.add_argument(
        "--quiet-seconds",
        type=float,
        default=180.0,
        metavar="N",
        help="how long to wait for the last answer after the last fault (default: %(default)g)",
    )
    parser.add_argument(
        "--report", default="chaos.html", metavar="FILE", help="the page to write (default: %(default)s)"
    )
    parser.add_argument("--runs", metavar="FILE", help="a JSON file to add this run's figures to")
    parser.add_argument(
        "--data", metavar="DIR", help="keep data and logs here (default: a temporary folder, removed at the end)"
    )
    parser.add_argument(
        "--list-faults", action="store_true", help="print the faults and what each does, and run nothing"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run it; 1 when an answer, a call or a fact is lost or doubled, or a reservation stays open."""
    from cli.chaos.faults import FAULTS, chosen
    from cli.chaos.run import chaos
    from cli.chaos.story import Options

    if arguments.list_faults:
        for fault in FAULTS.values():
            print(f"{fault.name:<18}{fault.what}")
        return 0
    for name, value in (("--requests", arguments.requests), ("--rate", arguments.rate), ("--every", arguments.every)):
        if value <= 0:
            raise CommandError(f"{name} is {value}; give a number above 0.")
    if sys.platform != "linux":
        raise CommandError("Chaos needs Linux: its children must not outlive it, and it uses prlimit.")
    options = Options(
        arguments.requests, arguments.rate, chosen(arguments.faults), arguments.faults, arguments.every, arguments.seed,
        arguments.database, arguments.quiet_seconds, Path(arguments.report), Path(arguments.runs) if arguments.runs else None,
        Path(arguments.data) if arguments.data else None,
    )  # fmt: skip
    return chaos(options)
