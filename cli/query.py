"""`millstream query`: SQL on the stack's ClickHouse, from the shell."""

from __future__ import annotations

import argparse
import sys

from cli.errors import CommandError
from cli.stackfile import stack_settings
from sinks.query import QueryFailed, Store

#: Short names of formats; every other name is ClickHouse's own: https://clickhouse.com/docs/interfaces/formats
FORMATS = {"table": "PrettyCompactMonoBlock", "json": "JSONEachRow", "csv": "CSVWithNames"}


def describe(parser: argparse.ArgumentParser) -> None:
    """The statement, and how its answer is written."""
    parser.add_argument("sql", metavar="SQL", help="the statement, or - to read it from standard input")
    parser.add_argument(
        "--format", default="table", metavar="NAME",
        help="table, json (an object a line), csv, or any ClickHouse format; "
        "a FORMAT clause in the statement comes first (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--write", action="store_true", help="allow statements that change data or tables")


def run(arguments: argparse.Namespace) -> int:
    """Print the answer as ClickHouse writes it."""
    sql = sys.stdin.read() if arguments.sql == "-" else arguments.sql
    if not sql.strip():
        raise CommandError('There is no SQL; write for example `millstream query "SELECT count() FROM usage"`.')
    name = FORMATS.get(arguments.format.lower(), arguments.format)
    if not (name.isascii() and name.isalnum()):
        raise CommandError(
            f"--format {arguments.format!r} is no name of a format; write table, json, csv or CSV, Markdown, Vertical …"
        )
    store = Store(stack_settings())
    out = sys.stdout.buffer
    try:
        for chunk in store.output(sql, name, write=arguments.write):
            out.write(chunk)
        out.flush()
    except QueryFailed as why:
        raise CommandError(str(why)) from None
    finally:
        store.close()
    return 0
