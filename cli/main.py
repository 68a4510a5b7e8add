"""The `millstream` command: one module a subcommand, each with `describe(parser)` and `run(arguments) -> exit status`."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from typing import NoReturn

from cli.errors import CommandError
from config.settings import SettingsError

COMMANDS = {
    "up": "start a local stack and all workers, until Ctrl-C",
    "send": "send one request, or a file of them, and print the answers",
    "tasks": "list, show and store the named tasks, or print the messages that one makes of an input",
    "cancel": "stop a request's call",
    "tail": "print the records of a topic as they come",
    "worker": "run the stage admit, complete or meter",
    "sink": "copy events into ClickHouse, or send alerts to webhooks",
    "report": "show spend, calls, errors, tokens and latency: in the terminal, as JSON, CSV or an HTML page",
    "query": "run SQL on ClickHouse and print the answer",
    "explain": "tell the whole story of a request: every event, decision, call, cost and time",
    "top": "watch lanes, lag, errors and spend live in the terminal",
    "reconcile": "prove that requests, answers, ledger, usage, ClickHouse and the provider agree",
    "rebuild": "fill ClickHouse again from the topics and prove it equal row by row",
    "replay": "send the records behind the dead letters again, each to where it came from, once",
    "reprice": "bring the cost of past calls to another price, as adjustments on the usage topic",
    "providers": "list, register, enable and test the providers that can be called",
    "models": "list and register models: aliases, capabilities, tiers, prices",
    "routes": "list and change which models answer which requests, and ask for the route of one",
    "limits": "say what accounts may use, and show what is used, held and left of it",
    "energy": "set what answers cost in credits, grant them to users, and show who has how many",
    "config": "export, import and compare the registry as one YAML file",
    "grant-reader": "print or apply the SQL that lets somebody read one tenant's rows",
    "keys": "store, list, revoke and rotate the providers' keys, encrypted; issue and revoke the API keys of applications",
    "migrate": "create topics, tables and registered schemas; safe to run again",
    "chaos": "kill, freeze and cut off every part of a local stack under load, and prove that nothing was lost",
    "demo": "run 300 requests through a local stack and prove that nothing was lost",
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise CommandError(f"{message[0].upper()}{message[1:]}; see `{self.prog} --help`.")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; its exit status, 2 with one sentence on standard error when it cannot be run as asked."""
    # Asked to end, a command leaves by the same door as with Ctrl-C and stops what it started; workers take their own way.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _run(sys.argv[1:] if arguments is None else arguments)
    except (CommandError, SettingsError) as problem:
        print(f"millstream: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output went away, as `head` does; Python must not fail again when it flushes at the end.
        sys.stdout = None  # type: ignore[assignment]
        return 0


def _run(arguments: list[str]) -> int:
    parser = _Parser(prog="millstream", description="A Kafka-native gateway to LLM providers.", allow_abbrev=False)
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    wanted = next((word for word in arguments if not word.startswith("-")), None)
    module = None
    for name, summary in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        if name == wanted:
            # Only the command that runs is imported, so that `millstream --help` and each command start fast.
            module = importlib.import_module(f"cli.{name.replace('-', '_')}")
            module.describe(subparser)
    parsed = parser.parse_args(arguments)
    if module is None:
        raise CommandError(f"{parsed.command} cannot be run from here; see `millstream --help`.")
    status: int = module.run(parsed)
    return status


if __name__ == "__main__":
    sys.exit(main())
