"""`millstream keys issue` and `issued`: the API keys that applications ask with."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal

from sqlalchemy import Engine

from cli.errors import CommandError
from cli.registry_change import print_table
from config import issued_keys
from config.credentials import Change
from config.issued_keys import PREFIX, IssuedKey, NewKey
from config.key_encryption import EncryptionKeys
from core.admission import LONGEST_LABEL

COLUMNS = ("id", "tenant", "user", "project", "models", "state", "issued", "expires", "label")
NANO = 1_000_000_000
SECONDS = {"m": 60, "h": 3_600, "d": 86_400}


def describe(action: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """The actions for API keys; `action` adds one of this name and help."""
    issue = action("issue", "make an API key that an application signs its requests with, and print it once")
    issue.add_argument("--tenant", required=True, metavar="NAME", help="the tenant that it asks for")
    issue.add_argument("--user", metavar="NAME", help="the only user that it asks for (default: any of the tenant's)")
    issue.add_argument("--project", metavar="NAME", help="the only project that it asks for (default: any)")
    issue.add_argument("--limit-usd-per-day", type=_usd, metavar="USD", help="the most that may be spent with it a day")
    issue.add_argument(
        "--models", action="append", default=[], type=_pattern, metavar="PATTERN",
        help="models that it may use, as 'google/*' or google/gemini-2.5-flash, repeatable (default: all)",
    )  # fmt: skip
    issue.add_argument("--expires", type=_length, metavar="TIME", help="how long it is good: 30d, 12h, 90m (default: for good)")  # fmt: skip
    issue.add_argument("--label", default="", metavar="TEXT", help="what to know it by")
    issue.add_argument("--by", metavar="WHO", help="who asks for it, for the audit (default: your login name)")
    listing = action("issued", "show the API keys that were issued; no secret is kept to be shown")
    listing.add_argument("--tenant", metavar="NAME", help="only this tenant's")
    listing.add_argument("--all", action="store_true", help="also those that are revoked or expired")


def is_one(key_id: str) -> bool:
    """Whether this is the id of an issued key, and not of a provider's."""
    return key_id.startswith(PREFIX)


def issue(arguments: argparse.Namespace, engine: Engine, keys: EncryptionKeys, change: Change) -> None:
    """Issue a key: itself on standard output, what it is on standard error."""
    for name in ("tenant", "user", "project", "label"):
        value: str | None = getattr(arguments, name)
        if value is not None and (len(value) > LONGEST_LABEL or "\x00" in value or (name != "label" and not value)):
            raise CommandError(f"--{name} has {len(value)} characters; give 1 to {LONGEST_LABEL}, none of them NUL.")
    expires = None if arguments.expires is None else change.at + arguments.expires * 1_000_000
    new = NewKey(
        arguments.tenant, arguments.user, arguments.project, tuple(arguments.models), arguments.label, expires,
        arguments.limit_usd_per_day,
    )  # fmt: skip
    with engine.begin() as db:
        made, secret = issued_keys.issue(db, keys, new, change)
    print(secret)
    print(f"This is API key {made.key_id} of tenant {made.tenant}; it cannot be shown again.", file=sys.stderr)


def revoke(key_id: str, engine: Engine, change: Change) -> None:
    """Revoke a key and say so."""
    with engine.begin() as db:
        one = issued_keys.revoke(db, key_id, change)
    print(f"Revoked API key {one.key_id} of tenant {one.tenant}.")


def show(arguments: argparse.Namespace, engine: Engine) -> None:
    """Print the keys that can be asked with, or all."""
    now = time.time_ns() // 1_000
    found = [
        one
        for one in issued_keys.issued_keys(engine)
        if arguments.tenant in (None, one.tenant) and (arguments.all or _state(one, now) == "good")
    ]
    none = "No such API key was issued. `millstream keys issue --tenant NAME` issues one."
    print_table(COLUMNS, [_row(one, now) for one in found], "label", none)


def _row(one: IssuedKey, now: int) -> tuple[object, ...]:
    expires = None if one.expires_at is None else _minute(one.expires_at)
    models = ", ".join(one.models) or "all"
    return (
        one.key_id, one.tenant, one.user or "any", one.project or "any", models, _state(one, now), _minute(one.created_at),
        expires, one.label,
    )  # fmt: skip


def _state(one: IssuedKey, now: int) -> str:
    if one.revoked_at is not None:
        return "revoked"
    return "expired" if one.expires_at is not None and one.expires_at <= now else "good"


def _minute(at: int) -> str:
    return f"{datetime.fromtimestamp(at / 1_000_000, UTC):%Y-%m-%d %H:%M}"


def _usd(text: str) -> int:
    """An amount in nano-USD."""
    try:
        nano = Decimal(text) * NANO
        if 0 < nano < 1 << 63 and nano == int(nano):
            return int(nano)
    except (ArithmeticError, ValueError):
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is no amount of USD above 0, such as 5 or 0.50")


def _length(text: str) -> int:
    """A length of time in seconds."""
    if (found := re.fullmatch(r"([1-9][0-9]{0,5})([mhd])", text)) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no length of time, such as 30d, 12h or 90m")
    return int(found[1]) * SECONDS[found[2]]


def _pattern(text: str) -> str:
    if "/" not in text or len(text) > LONGEST_LABEL:
        raise argparse.ArgumentTypeError(f"{text!r} is no pattern of provider/model, such as 'google/*'")
    return text
