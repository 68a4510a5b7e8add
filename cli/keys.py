"""`millstream keys`: the providers' keys in the database, the key that encrypts them, and the API keys of applications."""

from __future__ import annotations

import argparse
import getpass
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime

from sqlalchemy import Connection, Engine

from cli import issued_keys
from cli.errors import CommandError
from cli.refresh import publish_refresh
from cli.registry_change import actions, database, login_name, print_table
from cli.stackfile import stack_settings
from config import credentials
from config import issued_keys as issued_store
from config.credentials import Change, Credential, NewCredential, platform_credentials
from config.database import reading
from config.key_encryption import EncryptionKeys, encryption_keys, new_local_key
from config.registry import lane_names
from config.registry_store import version_of
from config.secrets import CredentialError
from config.settings import Settings

MOST_TEXT = 256
COLUMNS = ("id", "provider", "tenant", "key", "weight", "state", "added", "encrypted by", "label")


def describe(parser: argparse.ArgumentParser) -> None:
    """What to do with keys; a secret is never an argument."""
    added = actions(parser)

    def action(name: str, text: str) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = added.add_parser(name, help=text, description=text, allow_abbrev=False)
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
    secret_options(add)
    listing = action("list", "show the keys by their last four characters")
    listing.add_argument("--all", action="store_true", help="also those that are revoked")
    for name, text in (
        ("replace", "store a new key in place of one, which is revoked"), ("revoke", "delete a provider's key, or an API key, for good"),
        ("disable", "take a key out of use until it is enabled"), ("enable", "use a key again"),
    ):  # fmt: skip
        changing = action(name, text)
        changing.add_argument("id", metavar="ID", help="the key's id, as `millstream keys list` or `issued` shows it")
        if name == "replace":
            secret_options(changing)
        else:
            _by_option(changing)
    issued_keys.describe(action)
    rotate = action("rotate", "bring every key to the first key-encryption key, while they are used")
    rotate.add_argument("--data-keys", action="store_true", help="also encrypt every key anew, under new data keys")
    _by_option(rotate)
    new = action("new-encryption-key", "print a fresh line for the file of MILLSTREAM_KEY_ENCRYPTION")
    new.add_argument(
        "--name", default=f"key-{datetime.now(UTC):%Y-%m-%d}", metavar="NAME", help="small letters and digits"
    )


def secret_options(parser: argparse.ArgumentParser) -> None:
    """The options of an action that takes a secret: none but `--by`, and an argument that is taken only to be refused."""
    _by_option(parser)
    parser.add_argument("secret", nargs="*", help=argparse.SUPPRESS)


def _by_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--by", metavar="WHO", help="who asks for it, for the audit (default: your login name)")


def run(arguments: argparse.Namespace) -> int:
    """Do it and say what was done; 1 when a rotation left something behind."""
    if arguments.action == "new-encryption-key":
        return _new_encryption_key(arguments)
    settings = stack_settings()
    try:
        with database(settings) as engine:
            return ACTIONS[arguments.action](arguments, engine, settings)
    except CredentialError as why:
        raise CommandError(str(why)) from None


def replace_platforms(arguments: argparse.Namespace, settings: Settings) -> int:
    """Store a new key in place of the platform's only one for the provider called `arguments.name`."""
    with database(settings) as engine:
        with reading(engine) as db:
            held = platform_credentials(db, arguments.name)
        if len(held) != 1:
            raise CommandError(
                f"The platform has {len(held)} stored keys for {arguments.name}; "
                + (
                    "name the one with `millstream keys replace ID`."
                    if held
                    else f"`millstream keys add --provider {arguments.name}` stores one."
                )
            )
        arguments.id = held[0].credential_id
        try:
            return _replace(arguments, engine, settings)
        except CredentialError as why:
            raise CommandError(str(why)) from None


def _add(arguments: argparse.Namespace, engine: Engine, settings: Settings) -> int:
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
    secret = _secret(arguments, arguments.provider)
    return _do(arguments, engine, settings, "Stored", lambda db, by: credentials.add(db, keys, new, secret, by))


def _replace(arguments: argparse.Namespace, engine: Engine, settings: Settings) -> int:
    keys = _keys(settings)
    with engine.begin() as db:
        old = credentials.living(db, arguments.id)
    secret = _secret(arguments, old.provider)
    done = f"In place of {old.name} stored"
    return _do(
        arguments, engine, settings, done, lambda db, by: credentials.replace(db, keys, arguments.id, secret, by)
    )


def _list(arguments: argparse.Namespace, engine: Engine, _: Settings) -> int:
    with reading(engine) as db:
        found = [one for one in credentials.stored(db) if arguments.all or one.revoked_at is None]
    none = "No keys are stored; those of the environment serve. `millstream keys add --provider NAME` stores one."
    print_table(COLUMNS, [_row(one) for one in found], "label", none)
    return 0


def _row(one: Credential) -> tuple[object, ...]:
    state = "enabled" if one.enabled else "disabled"
    if one.sealed is None:
        state = "row changed" if one.revoked_at is None else "revoked"
    return (
        one.credential_id, one.provider, one.tenant, f"…{one.last_four}" if one.last_four else None, one.weight, state,
        f"{datetime.fromtimestamp(one.created_at / 1_000_000, UTC):%Y-%m-%d}",
        one.sealed.kek_id if one.sealed is not None else None, one.label,
    )  # fmt: skip


def _issue(arguments: argparse.Namespace, engine: Engine, settings: Settings) -> int:
    issued_keys.issue(arguments, engine, _keys(settings), _change(arguments))
    _tell(arguments, engine, settings)
    return 0


def _issued(arguments: argparse.Namespace, engine: Engine, _: Settings) -> int:
    issued_keys.show(arguments, engine)
    return 0


def _revoke(arguments: argparse.Namespace, engine: Engine, settings: Settings) -> int:
    if issued_keys.is_one(arguments.id):
        issued_keys.revoke(arguments.id, engine, _change(arguments))
        _tell(arguments, engine, settings)
        return 0
    return _do(arguments, engine, settings, "Revoked", lambda db, by: credentials.revoke(db, arguments.id, by))


def _enable(arguments: argparse.Namespace, engine: Engine, settings: Settings) -> int:
    on = arguments.action == "enable"
    done = "Enabled" if on else "Disabled"
    return _do(arguments, engine, settings, done, lambda db, by: credentials.enable(db, arguments.id, on, by))


def _do(
    arguments: argparse.Namespace, engine: Engine, settings: Settings, done: str,
    act: Callable[[Connection, Change], Credential],
) -> int:  # fmt: skip
    """Change a credential, say so, and tell the workers."""
    with engine.begin() as db:
        one = act(db, _change(arguments))
    whose = "the platform" if one.tenant is None else f"tenant {one.tenant}"
    print(f"{done} {one.name} of {one.provider} for {whose}.")
    _tell(arguments, engine, settings)
    return 0


def _rotate(arguments: argparse.Namespace, engine: Engine, settings: Settings) -> int:
    keys = _keys(settings)
    rotated, problems = credentials.rotate(engine, keys, _change(arguments), data_keys=arguments.data_keys)
    issued, more = issued_store.rotate(engine, keys, data_keys=arguments.data_keys)
    rotated, problems = rotated + issued, problems + more
    print(f"{rotated} keys are encrypted by {keys.active.key_id} now, and {len(problems)} are as they were.")
    for problem in problems:
        print(problem, file=sys.stderr)
    _tell(arguments, engine, settings)
    return 1 if problems else 0


def _new_encryption_key(arguments: argparse.Namespace) -> int:
    line = new_local_key(arguments.name)
    encryption_keys("env:LINE", {"LINE": line})
    print(line)
    return 0


ACTIONS = {
    "add": _add, "replace": _replace, "list": _list, "revoke": _revoke, "disable": _enable, "enable": _enable,
    "rotate": _rotate, "issue": _issue, "issued": _issued,
}  # fmt: skip


def _tell(arguments: argparse.Namespace, engine: Engine, settings: Settings) -> None:
    with reading(engine) as db:
        version = version_of(db)
    if (why := publish_refresh(settings, arguments.by or login_name(), version)) is not None:
        seconds = f"{settings.registry_refresh_seconds:g}"
        print(f"Workers see this within {seconds} s; they were not told: {why}", file=sys.stderr)


def _keys(settings: Settings) -> EncryptionKeys:
    keys = encryption_keys(settings.key_encryption)
    _ = keys.active
    return keys


def _secret(arguments: argparse.Namespace, provider: str) -> str:
    """The secret, from a hidden prompt at a terminal and else from standard input; `CommandError` for one as an argument."""
    if arguments.secret:
        raise CommandError(
            "A key is never an argument, where the shell keeps it and others see it; give it on standard input, and replace "
            "the one that was just written."
        )
    if sys.stdin.isatty():
        return getpass.getpass(f"Key of {provider} (not shown): ").strip()
    return sys.stdin.read().strip()


def _change(arguments: argparse.Namespace) -> Change:
    return Change(arguments.by or login_name(), time.time_ns() // 1_000)
