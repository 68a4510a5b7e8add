"""`millstream reconcile`: requests, answers, ledger, usage, facts, bodies, rollups and the provider's own count, held against each other."""

from __future__ import annotations

import argparse
import sys
import time

from cli.errors import CommandError
from cli.stackfile import simulator_url, stack_settings


def describe(parser: argparse.ArgumentParser) -> None:
    """Which part of the log, written how."""
    parser.add_argument(
        "--since", metavar="TIME",
        help="only what was published since then: 2h, 7d, or a UTC date or time (default: all that the topics hold)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--simulator",
        metavar="URL",
        help="the provider simulator to compare with (default: that of this folder's stack)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Compare, print a line a comparison; 1 when one of them does not hold."""
    from confluent_kafka import KafkaException
    from rich.console import Console
    from sqlalchemy.exc import SQLAlchemyError

    from cli.reconcile.gather import reconcile
    from cli.reconcile.show import as_json, draw
    from cli.report.window import parse_since
    from sinks.query import QueryFailed

    settings = stack_settings()
    now = time.time_ns() // 1_000
    since = parse_since(arguments.since, now).since if arguments.since else None
    simulator = arguments.simulator or simulator_url()
    try:
        proof = reconcile(settings, since, simulator, lambda line: print(line, file=sys.stderr))
    except QueryFailed as why:
        raise CommandError(str(why)) from None
    except KafkaException as why:
        raise CommandError(
            f"Kafka at {settings.kafka_bootstrap} does not tell what it holds ({why.args[0].str()}); try again."
        ) from None
    except SQLAlchemyError as why:
        raise CommandError(
            f"The ledger's database cannot be read ({type(why).__name__}); run `millstream migrate`, or set "
            "MILLSTREAM_DATABASE_URL to the one that the workers use."
        ) from None
    if arguments.json:
        print(as_json(proof, now))
    else:
        draw(proof, now, Console())
    return 1 if any(line.status == "BROKEN" for line in proof.lines) else 0
