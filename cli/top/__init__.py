"""`millstream top`: lanes, lag, errors and spend, live in the terminal."""

from __future__ import annotations

import argparse
import json
import time

from cli.errors import CommandError
from cli.stackfile import stack_settings

#: No faster than this: each look asks Kafka, ClickHouse and every worker.
LEAST_SECONDS = 0.5


def describe(parser: argparse.ArgumentParser) -> None:
    """Once or live, for people or for programs."""
    parser.add_argument("--once", action="store_true", help="look once, print it and end")
    parser.add_argument("--json", action="store_true", help="with --once: print JSON")
    parser.add_argument(
        "--every", type=float, default=2.0, metavar="SECONDS", help="time between two looks (default: %(default)s)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Show the view until Ctrl-C, or once."""
    if arguments.json and not arguments.once:
        raise CommandError("--json prints one look; add --once.")
    if not arguments.every >= LEAST_SECONDS:
        raise CommandError(f"--every {arguments.every:g} is below {LEAST_SECONDS:g} seconds; give more.")
    from rich.console import Console
    from rich.live import Live

    from cli.top.look import Lookout
    from cli.top.view import draw

    lookout = Lookout(stack_settings())
    look = lookout.look()
    if arguments.once:
        if look.problems:
            raise CommandError(look.problems[0])
        if arguments.json:
            print(json.dumps(look.values(), indent=2))
        else:
            Console().print(draw(look))
        return 0
    with Live(draw(look), screen=True, auto_refresh=False) as live:
        try:
            while True:
                time.sleep(arguments.every)
                live.update(draw(lookout.look()), refresh=True)
        except KeyboardInterrupt:
            return 0
