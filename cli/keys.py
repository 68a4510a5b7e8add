"""`millstream keys`: the providers' keys in the database, and the key that encrypts them."""

from __future__ import annotations

import argparse
import getpass
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from cli.errors import CommandError
from cli.stackfile import stack_settings
from config import credentials
from config.credentials import Change, Credential, NewCredential
from config.database import create_tables, open_database, reading
from config.key_encryption import EncryptionKeys, encryption_keys, new_local_key
from config.registry import lane_names
from config.secrets import CredentialError
from config.settings import Settings

MOST_TEXT = 256


def describe(parser: argparse.ArgumentParser) -> None:
    """What to do with keys; a secret is never an argument."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, text: str) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = actions.add_parser(name, help=text, description=text, allow_abbrev=False)
        return made

    add = action("add", "store a key, read from standard input or asked for; encrypted")
    add.add_argument("--provider", required=True, metavar="NAME", help="the provider that the key is for")
    add.add_argument(
        "--tenant", metavar="NAME", help="whose own key it is, used for this tenant only (default: the platform's)"
    )
    add.add_argument("--label", default="", metavar="TEXT", help="what to know it by")
    add.add_argument(
        "--weight", type=int, default=1, metavar="N", help="how often it is taken among its like (default: 1)"
    )
    # Taken so that it can be refused without being repeated.
    add.add_argument("secret", nargs="*", help=argparse.SUPPRESS)
    listing = action("list", "show the keys by their last four characters")
    listing.add_argument("--all", action="store_true", help="also those that are revoked")
    for name, text in (
        ("revoke", "delete a key for good"), ("disable", "let a key rest until it is enabled"), ("enable", "use a key again"),
    ):  # fmt: skip
        action(name, text).add_argument("id", metavar="ID", help="the key's id, as `millstream keys list` shows it")
    rotate = action("rotate", "bring every key to the first key-encryption key, while they are used")
    rotate.add_argument("--data-keys", action="store_true", help="also encrypt every key anew, under new data keys")
    new = action("new-encryption-key", "print a fresh line for the file of MILLSTREAM_KEY_ENCRYPTION")
    new.add_argument(
        "--name", default=f"key-{datetime.now(UTC):%Y-%m-%d}", metavar="NAME", help="small letters and digits"
    )


def run(arguments: argparse.Namespace) -> int:
    """Do it and say what was done; 1 when a rotation left something behind."""
    if arguments.action == "new-encryption-key":
        return _new_encryption_key(arguments)
    settings = stack_settings()
    engine = open_database(settings.database_url)
    try:
        create_tables(engine)
        return ACTIONS[arguments.action](arguments, engine, settings)
    except CredentialError as why:
        raise CommandError(str(why)) from None
    except SQLAlchemyError as error:
        first = str(getattr(error, "orig", None) or error).splitlines()[0][:200]
        raise CommandError(
            f"The database at {engine.url.render_as_string()} cannot be used ({first}); start it or set MILLSTREAM_DATABASE_URL."
        ) from None
    finally:
        engine.dispose()


def _add(arguments: argparse.Namespace, engine: Engine, settings: Settings) -> int:
    if arguments.secret:
        raise CommandError(
            "A key is never an argument, where the shell keeps it and others see it; give it on standard input, and replace "
            "the one that was just written."
        )
    for name in ("tenant", "label"):
        value: str | None = getattr(arguments, name)
        if value is not None and (len(value) > MOST_TEXT or (name == "tenant" and not value)):
            raise CommandError(f"--{name} has {len(value)} characters; give 1 to {MOST_TEXT}.")
    if arguments.weight < 1:
        raise CommandError(f"--weight {arguments.weight} cannot be used; give 1 or more.")
    keys = _keys(settings)
    with reading(engine) as db:
        known = lane_names(db)
    if arguments.provider not in known:
        raise CommandError(f"There is no provider {arguments.provider}; there are {', '.join(known)}.")
    new = NewCredential(arguments.provider, arguments.tenant, arguments.label, arguments.weight)
    secret = _secret(arguments.provider)
    with engine.begin() as db:
        made = credentials.add(db, keys, new, secret, _change())
    print(f"Stored {made.name} of {made.provider} for {_owner(made)}.")
    return 0


def _list(arguments: argparse.Namespace, engine: Engine, _: Settings) -> int:
    with reading(engine) as db:
        found = [one for one in credentials.stored(db) if arguments.all or one.revoked_at is None]
    if not found:
        print("No keys are stored; those of the environment serve. `millstream keys add --provider NAME` stores one.")
        return 0
    head = ("ID", "PROVIDER", "TENANT", "KEY", "WEIGHT", "STATE", "ADDED", "ENCRYPTED BY", "LABEL")
    rows = [head, *(_row(one) for one in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _row(one: Credential) -> tuple[str, ...]:
    state = "revoked" if one.revoked_at is not None else "enabled" if one.enabled else "disabled"
    return (
        one.credential_id, one.provider, one.tenant or "-", f"…{one.last_four}" if one.last_four else "-", str(one.weight),
        state, f"{datetime.fromtimestamp(one.created_at / 1_000_000, UTC):%Y-%m-%d}",
        one.sealed.kek_id if one.sealed is not None else "-", one.label,
    )  # fmt: skip


def _revoke(arguments: argparse.Namespace, engine: Engine, _: Settings) -> int:
    return _on_one(engine, lambda db: credentials.revoke(db, arguments.id, _change()), "Revoked")


def _enable(arguments: argparse.Namespace, engine: Engine, _: Settings) -> int:
    on = arguments.action == "enable"
    return _on_one(
        engine, lambda db: credentials.enable(db, arguments.id, on, _change()), "Enabled" if on else "Disabled"
    )


def _on_one(engine: Engine, act: Callable[[Connection], Credential], done: str) -> int:
    with engine.begin() as db:
        one = act(db)
    print(f"{done} {one.name} of {one.provider} for {_owner(one)}.")
    return 0


def _rotate(arguments: argparse.Namespace, engine: Engine, settings: Settings) -> int:
    keys = _keys(settings)
    rotated, problems = credentials.rotate(engine, keys, _change(), data_keys=arguments.data_keys)
    print(f"{rotated} keys are encrypted by {keys.active.key_id} now, and {len(problems)} are as they were.")
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def _new_encryption_key(arguments: argparse.Namespace) -> int:
    line = new_local_key(arguments.name)
    encryption_keys("env:LINE", {"LINE": line})
    print(line)
    return 0


ACTIONS = {
    "add": _add, "list": _list, "revoke": _revoke, "disable": _enable, "enable": _enable, "rotate": _rotate,
}  # fmt: skip


def _keys(settings: Settings) -> EncryptionKeys:
    keys = encryption_keys(settings.key_encryption)
    _ = keys.active
    return keys


def _secret(provider: str) -> str:
    """The secret, from a hidden prompt at a terminal and else from standard input."""
    if sys.stdin.isatty():
        return getpass.getpass(f"Key of {provider} (not shown): ").strip()
    return sys.stdin.read().strip()


def _change() -> Change:
    try:
        who = getpass.getuser()
    except (OSError, KeyError):
        who = "unknown"
    return Change(who, time.time_ns() // 1_000)


def _owner(one: Credential) -> str:
    return "the platform" if one.tenant is None else f"tenant {one.tenant}"
