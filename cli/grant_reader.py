"""`millstream grant-reader`: SQL that lets somebody read one tenant's rows, and the sink write."""

from __future__ import annotations

import argparse

from cli.errors import CommandError
from cli.stackfile import stack_settings
from sinks.grants import reader_statements, writer_statements


def describe(parser: argparse.ArgumentParser) -> None:
    """For whom, and whether to run it."""
    parser.add_argument("--tenant", required=True, metavar="NAME", help="the tenant whose rows may be read")
    parser.add_argument("--user", metavar="NAME", help="grant the reader's role to this user of ClickHouse")
    parser.add_argument(
        "--bodies", action="store_true", help="also let the reader see the tenant's prompts and answers"
    )
    parser.add_argument(
        "--apply", action="store_true", help="run the statements on ClickHouse instead of printing them"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the statements, or run them and say so."""
    for name in ("tenant", "user"):
        if getattr(arguments, name) == "":
            raise CommandError(f"--{name} is empty; give a name.")
    settings = stack_settings()
    database = settings.clickhouse_database
    reader = reader_statements(database, arguments.tenant, arguments.user, arguments.bodies)
    writer = writer_statements(database)
    if not arguments.apply:
        print(f"-- A reader that sees the rows of tenant {arguments.tenant!r} only.")
        print(*(f"{statement};" for statement in reader), sep="\n")
        print("\n-- The sink's own role, the same for all tenants.")
        print(*(f"{statement};" for statement in writer), sep="\n")
        return 0
    from sinks.query import QueryFailed, Store

    store = Store(settings)
    done = 0
    try:
        for statement in (*reader, *writer):
            for _ in store.output(statement, "Null", write=True):
                pass
            done += 1
    except QueryFailed as why:
        raise CommandError(
            f"{done} of {len(reader) + len(writer)} statements were run. {str(why).rstrip('.')}. Running it again is safe; without "
            "--apply it prints the SQL, to give to an administrator of ClickHouse."
        ) from None
    finally:
        store.close()
    print(
        f"{len(reader)} statements for the reader of tenant {arguments.tenant!r} and {len(writer)} for the sink's role were run."
    )
    return 0
