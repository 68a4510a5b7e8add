"""`millstream explain`: the whole story of a request, every event, decision, call, cost and time."""

from __future__ import annotations

import argparse
import sys
import time

from cli.errors import CommandError
from cli.stackfile import stack_settings
from core.admission import UUID


def describe(parser: argparse.ArgumentParser) -> None:
    """Which request, told how."""
    parser.add_argument("request_id", metavar="REQUEST_ID", help="the id of the request, as `send` prints it")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--bodies", action="store_true", help="also print the messages and the answer, where they are kept"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the story; 1 when nobody knows the request."""
    from rich.console import Console

    from cli.explain.gather import gather
    from cli.explain.show import MOST_COLUMNS, as_json, draw
    from cli.explain.story import story_of

    settings = stack_settings()
    known = gather(settings, arguments.request_id, arguments.bodies, time.time_ns() // 1_000)
    if not known.anything:
        if known.problems:
            raise CommandError(" ".join(known.problems))
        print(f"millstream: {_nobody_knows(arguments.request_id, settings.ledger_keep_days)}", file=sys.stderr)
        return 1
    story = story_of(known)
    if arguments.json:
        print(as_json(known, story))
    else:
        wide = Console().width if sys.stdout.isatty() else MOST_COLUMNS
        draw(known, story, Console(width=min(wide, MOST_COLUMNS), highlight=False))
    return 0


def _nobody_knows(request_id: str, keep_days: int) -> str:
    shape = "" if UUID.fullmatch(request_id) else "it is no UUID, as ids of requests are; "
    return (
        f"Neither ClickHouse nor the ledger knows request {request_id!r}: {shape}check the id, that the command reads the same "
        f"ClickHouse and database as the workers, and with `millstream top` that admit and the sink are not behind (the ledger "
        f"forgets answered requests after {keep_days} days)."
    )
