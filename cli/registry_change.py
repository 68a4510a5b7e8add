"""What the commands of the registry share: reading it, changing it with an audit, and saying what changed."""

from __future__ import annotations

import argparse
import getpass
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from cli import kafka
from cli.amounts import NOTHING, plain
from cli.errors import CommandError
from cli.refresh import publish_refresh
from config.database import in_the_way, open_database, reading
from config.registry import apply, complete, lane_names
from config.registry_edits import Edit
from config.registry_entries import Contents, RegistryInvalid
from config.registry_file import TIMES, time_text
from config.registry_store import Changed, Difference, contents_of, version_of
from config.settings import PROVIDER_NAMES, Settings
from config.upgrade import refuse_other_schema
from core.registry import Registry
from core.registry_rules import check
from core.topics import calls

#: Columns of the terminal between two of a table, and what a text that is folded has at least.
BETWEEN, LEAST_FOLDED = 2, 12
SIGNS = {"add": "+", "remove": "-"}


def json_option(parser: argparse.ArgumentParser) -> None:
    """`--json`, for commands that only show."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def change_options(parser: argparse.ArgumentParser) -> None:
    """`--by` and `--json`, for commands that change."""
    parser.add_argument("--by", metavar="WHO", help="who asks for it, for the audit (default: your login name)")
    json_option(parser)


def actions(parser: argparse.ArgumentParser) -> Any:
    """Where a command's actions are added."""
    return parser.add_subparsers(dest="action", required=True, metavar="ACTION")


@contextmanager
def database(settings: Settings) -> Iterator[Engine]:
    """The registry's database; `CommandError` when it cannot be used as it is, or what is asked of it cannot be done."""
    engine = open_database(settings.database_url)
    try:
        with engine.connect() as db:
            refuse_other_schema(db)
        yield engine
    except RegistryInvalid as refused:
        raise CommandError("\n".join(refused.problems)) from None
    except SQLAlchemyError as error:
        if in_the_way(error):
            raise CommandError(
                f"Others were at work in the database at {engine.url.render_as_string()} and in the way "
                f"({type(error.__cause__).__name__}); nothing was changed, run the command again."
            ) from None
        raise CommandError(
            f"The database at {engine.url.render_as_string()} cannot be used ({type(error).__name__}); "
            "start it, run `millstream migrate`, or set MILLSTREAM_DATABASE_URL."
        ) from None
    finally:
        engine.dispose()


def read(settings: Settings) -> tuple[Contents, Registry]:
    """What the database holds, and the registry that comes of it, also of one that cannot be used."""
    with database(settings) as engine, reading(engine) as db:
        contents = contents_of(db)
        return contents, complete(contents, settings, time.time_ns() // 1_000, version_of(db))


def commit(settings: Settings, edit: Edit, arguments: argparse.Namespace) -> int:
    """Change the registry, tell the workers, and print what changed; exit status 0."""
    by = arguments.by or login_name()
    now = time.time_ns() // 1_000
    with database(settings) as engine:
        with engine.begin() as db:
            before = contents_of(db)
            changed = apply(db, edit, settings, by, now)
            after = contents_of(db)
            lanes = [name for name in lane_names(db) if name not in PROVIDER_NAMES]
    notes = [*check(complete(after, settings, now), PROVIDER_NAMES).warnings, *_taken_over(before, after, settings)]
    if changed.differences:
        notes += _told(settings, by, changed.version, [name for name in lanes if name not in before.providers])
    _print(changed, notes, arguments.json)
    return 0


def preview(settings: Settings, edit: Edit) -> tuple[Difference, ...]:
    """What a change would do: it is made, checked and taken back."""
    with database(settings) as engine, engine.connect() as db, db.begin() as transaction:
        changed = apply(db, edit, settings, login_name(), time.time_ns() // 1_000)
        transaction.rollback()
        return changed.differences


def login_name() -> str:
    """Who runs this, for the audit."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def lines_of(differences: Sequence[Difference]) -> list[str]:
    """What changes, a line an entry: + what is added, - what is removed, ~ what is updated with each field."""
    lines = []
    for one in differences:
        lines.append(f"{SIGNS.get(one.action, '~')} {one.subject}")
        if one.action == "update":
            lines += [
                f"    {name}: {_shown(name, old)} → {_shown(name, new)}" for name, (old, new) in one.fields().items()
            ]
    return lines


def as_data(differences: Sequence[Difference]) -> list[dict[str, Any]]:
    """What changes, for JSON."""
    return [{"action": d.action, "subject": d.subject, "before": d.before, "after": d.after} for d in differences]


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], wide: str | tuple[str, ...], empty: str = ""
) -> None:
    """A table on standard output whose `wide` columns take the room that is left, or the sentence for one without rows.

    Where there is too little room it is wider than the terminal: of a figure or an id, no letter is left out.
    """
    console = Console(highlight=False)
    if not rows:
        console.print(Text(empty))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    cells = [[_cell(value) for value in row] for row in rows]
    needed = BETWEEN * (len(columns) - 1)
    for column, values in zip(columns, zip(*cells, strict=True), strict=True):
        folds = column in ((wide,) if isinstance(wide, str) else wide)
        longest = max(map(cell_len, (column, *values)))
        least = min(longest, LEAST_FOLDED) if folds else longest
        needed += least
        table.add_column(column, overflow="fold", no_wrap=not folds, min_width=least)
    for texts in cells:
        table.add_row(*map(Text, texts))
    console.width = max(console.width, needed)
    console.print(table)


def _cell(value: object) -> str:
    if value is None or value == "":
        return NOTHING
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return plain(str(value))


def _shown(field: str, value: Any) -> str:
    if field in TIMES and value is not None:
        return time_text(value)
    return plain(json.dumps(value, ensure_ascii=False))


def _taken_over(before: Contents, after: Contents, settings: Settings) -> list[str]:
    """What no longer comes from the environment since the database has something of its own."""
    notes = []
    if after.providers and not before.providers:
        lost = [name for name in settings.served() if name not in after.providers]
        if lost:
            notes.append(f"Only registered providers serve from now on; add {', '.join(lost)} too if you use them.")
    if after.routes and not before.routes:
        notes.append("The default routes hold no longer, now that there is one of your own.")
    return notes


def _told(settings: Settings, by: str, version: int, new_lanes: Sequence[str]) -> list[str]:
    """Tell the workers and make the topics of new lanes; what is left to do."""
    why = publish_refresh(settings, by, version)
    left = (
        []
        if why is None
        else [f"Workers see this within {settings.registry_refresh_seconds:g} s; they were not told: {why}"]
    )
    if new_lanes:
        if why is None:
            kafka.create_topics(settings, tuple(calls(name) for name in new_lanes))
        else:
            left.append(f"The lanes of {', '.join(new_lanes)} have no topics yet; run `millstream migrate`.")
        left.append(f"Start `millstream worker complete --provider {new_lanes[0]}` for its lane.")
    return left


def _print(changed: Changed, notes: Sequence[str], as_json: bool) -> None:
    if as_json:
        print(json.dumps({"version": changed.version, "changes": as_data(changed.differences), "notes": list(notes)}))
        return
    for line in lines_of(changed.differences):
        print(plain(line))
    print(f"Registry version {changed.version}." if changed.differences else "Nothing changes.")
    for note in notes:
        print(note, file=sys.stderr)
