"""`millstream up`: a local stack with all workers in the foreground."""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import replace
from pathlib import Path

from cli.errors import CommandError
from cli.running import running
from cli.stackfile import PROVIDER_VARIABLES, STACK_FILE


def describe(parser: argparse.ArgumentParser) -> None:
    """Where data goes, what else to start, and which providers are real."""
    parser.add_argument(
        "--data", metavar="DIR", help="keep the data here (default: a temporary folder, removed at the end)"
    )
    parser.add_argument("--postgres", action="store_true", help="keep the ledger in PostgreSQL instead of SQLite")
    parser.add_argument("--registry", action="store_true", help="start a schema registry and write its wire format")
    parser.add_argument(
        "--provider-base-url", action="append", default=[], metavar="NAME=URL",
        help=f"send a provider's calls there instead of to the simulator, repeatable; NAME is one of {', '.join(PROVIDER_VARIABLES)}",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Run until Ctrl-C, or until a process ends that should not; then everything is stopped."""
    elsewhere = provider_environment(arguments.provider_base_url)
    data = Path(arguments.data) if arguments.data else None
    with running(
        data, environment=elsewhere, postgres=arguments.postgres, registry=arguments.registry, progress=_say
    ) as up:
        pids = {name: child.pid for name, child in up.workers.items()}
        pages = {name: f"{address}/metrics" for name, address in up.monitoring.items()}
        called = {name: url for name in PROVIDER_VARIABLES if (url := up.settings.provider(name).base_url)}
        running_now = {**up.stack.processes, **pids}
        replace(up.stack, processes=running_now, metrics=pages, providers=called).write(STACK_FILE)
        try:
            _say(
                _greeting(
                    up.stack.kafka_bootstrap, up.stack.clickhouse_url, up.stack.database_url, up.stack.simulator_url
                )
            )
            while True:
                time.sleep(0.5)
                ended = next((name for name, child in up.workers.items() if not child.running), None)
                if ended is not None:
                    print(up.workers[ended].log_tail())
                    raise CommandError(f"Worker {ended} ended by itself; its last lines are above.")
        except KeyboardInterrupt:
            _say("\nStopping ...")
        finally:
            STACK_FILE.unlink(missing_ok=True)
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


def provider_environment(given: list[str]) -> dict[str, str]:
    """The variables that point providers away from the simulator: those of `NAME=URL` words, then the environment's own.

    A provider whose base URL is set nowhere stays with the simulator, and a real key is not used for it.
    """
    chosen: dict[str, str] = {}
    for word in given:
        name, _, url = word.partition("=")
        if name not in PROVIDER_VARIABLES or not url.startswith(("http://", "https://")):
            names = ", ".join(PROVIDER_VARIABLES)
            raise CommandError(
                f"--provider-base-url {word!r} is not NAME=URL; give one of {names} and an http address."
            )
        chosen[PROVIDER_VARIABLES[name][0]] = url
    for address, key in PROVIDER_VARIABLES.values():
        elsewhere = chosen.get(address) or os.environ.get(address)
        if elsewhere is not None:
            chosen[address] = elsewhere
            chosen[key] = os.environ.get(key, "none")
    return chosen


def _greeting(kafka: str, clickhouse: str, database: str, simulator: str | None) -> str:
    # The SQL is text to copy, not a statement that is run here.
    return f"""
Millstream is up. Ctrl-C stops it.

  Kafka       {kafka}
  ClickHouse  {clickhouse}
  Ledger      {database}
  Simulator   {simulator}
  Metrics     a Prometheus page a worker, addresses in {STACK_FILE}

Try, in another terminal in this folder:

  millstream send "Why is the sky blue?" --model openai/gpt-5-mini --tenant acme
  millstream tail usage --from-beginning
  millstream providers list
  curl '{clickhouse}' --data 'SELECT tenant, sum(cost_nano_usd) / 1e9 AS usd FROM millstream.usage GROUP BY tenant'
"""  # noqa: S608
