"""`millstream limits`: what accounts may use, how much of it they have used, and all limits as one YAML file."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection

from cli.amounts import NOTHING, moment, plain
from cli.errors import CommandError
from cli.files import read_text, write_text
from cli.registry_change import SIGNS, actions, as_data, change_options, database, json_option, login_name, print_table
from cli.stackfile import stack_settings
from config.database import reading
from config.limit_uses import Use, uses
from config.limits import Edit, change, read
from config.limits_file import LIMITED, account_of, edit_to, from_yaml, limit_of, to_yaml
from config.registry_entries import RegistryInvalid
from config.registry_store import Changed
from config.settings import Settings
from core.accounts import ANY, KINDS, PLATFORM, account, is_pattern, tenant_of
from core.limits import Limit, amount_shown, shown

BAR = 10
ACCOUNT_HELP = "a tenant, or a path such as /acme/user:ana; * for every name, as in '/*/user:*'"


def describe(parser: argparse.ArgumentParser) -> None:
    """The actions and their options."""
    action = actions(parser)
    setting = action.add_parser(
        "set", help="limit an account, in place of what its limit of the same kind was", allow_abbrev=False
    )
    _account_options(setting)
    for word in LIMITED:
        text = (
            "requests under way at once" if word == "concurrent" else f"{word.replace('_', ' ')}".replace("usd", "USD")
        )
        setting.add_argument(_option(word), metavar="N", help=f"at most so many {text}")
    setting.add_argument("--sliding", action="store_true", help="count over the time just past, not by the calendar")
    setting.add_argument("--soft", action="store_true", help="refuse nothing, only alert")
    _scope_options(setting)
    setting.add_argument(
        "--time-zone", metavar="ZONE", help="where the tenant's days begin, such as Europe/Berlin (default: UTC)"
    )
    change_options(setting)
    showing = action.add_parser("show", help="what is used, held and left of every limit", allow_abbrev=False)
    _account_options(showing)
    json_option(showing)
    removing = action.add_parser(
        "remove", help="remove limits of an account, all that no option narrows", allow_abbrev=False
    )
    _account_options(removing)
    for word in LIMITED:
        removing.add_argument(_option(word), action="store_true", help="only this one")
    _scope_options(removing)
    change_options(removing)
    exporting = action.add_parser("export", help="print all limits as YAML", allow_abbrev=False)
    exporting.add_argument("--out", metavar="PATH", help="the file to write (default: standard output)")
    importing = action.add_parser("import", help="bring all limits to what a file says", allow_abbrev=False)
    importing.add_argument("file", metavar="PATH", help="the YAML file; - reads standard input")
    importing.add_argument("--dry-run", action="store_true", help="show what would change and write nothing")
    change_options(importing)


def _account_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("account", nargs="?", metavar="ACCOUNT", help=ACCOUNT_HELP)
    parser.add_argument(
        "--platform", action="store_true", help="the account of all tenants together, in place of ACCOUNT"
    )
    for kind in KINDS:
        parser.add_argument(f"--{kind}", metavar="NAME", help=f"a {kind} of the tenant; '*' for each of them")


def _scope_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", metavar="PATTERN", help="only requests for such tasks")
    parser.add_argument("--model", metavar="PATTERN", help="only calls of such models, as provider/model")


def _option(word: str) -> str:
    return f"--{word.replace('_', '-')}"


def run(arguments: argparse.Namespace) -> int:
    """Do what the action says."""
    settings = stack_settings()
    try:
        match arguments.action:
            case "set":
                edit = _set(arguments)
                return _change(settings, lambda _: edit, arguments)
            case "remove":
                return _change(settings, lambda db: _remove(db, arguments), arguments)
            case "import":
                wanted = from_yaml(read_text(arguments.file))
                return _change(settings, lambda db: edit_to(read(db), wanted), arguments)
            case "export":
                return _export(settings, arguments.out)
        return _show(settings, arguments)
    except RegistryInvalid as invalid:
        raise CommandError("\n".join(invalid.problems)) from None


def _account(arguments: argparse.Namespace) -> str | None:
    """The account that the arguments name; None where they name none."""
    named = [(kind, name) for kind in KINDS if (name := getattr(arguments, kind)) is not None]
    if arguments.platform:
        if named or arguments.account is not None:
            raise CommandError("--platform is an account of its own; leave out ACCOUNT and what is below it.")
        return PLATFORM
    if arguments.account is None:
        if named:
            raise CommandError(f"--{named[0][0]} belongs to a tenant; name it as well, such as `acme`.")
        return None
    path = account_of(arguments.account)
    if not named:
        return path
    if len(named) > 1 or path == PLATFORM or ":" in path.partition("/")[2].partition("/")[2]:
        raise CommandError("An account is one project, user or key of one tenant; give the tenant and one of them.")
    kind, name = named[0]
    return account_of(path + account(ANY, kind, name).removeprefix(f"/{ANY}"))


def _needed(arguments: argparse.Namespace) -> str:
    path = _account(arguments)
    if path is None:
        raise CommandError("No account is named; give a tenant, a path such as /acme/user:ana, or --platform.")
    return path


def _set(arguments: argparse.Namespace) -> Edit:
    path = _needed(arguments)
    words = [word for word in LIMITED if getattr(arguments, word) is not None]
    if not words and arguments.time_zone is None:
        raise CommandError("Nothing is limited; say what, such as --usd-per-month 500 or --concurrent 20.")
    if arguments.sliding and not set(words) - {"concurrent"}:
        raise CommandError(
            "--sliding needs a limit of a minute, hour, day, week or month, such as --tokens-per-minute 100000."
        )
    terms = {name: getattr(arguments, name) for name in ("sliding", "soft", "task", "model")}
    limits = [limit_of(path, word, getattr(arguments, word), **terms) for word in words]
    return Edit(limits, zones=_zones(path, arguments.time_zone))


def _zones(path: str, zone: str | None) -> list[tuple[str, str | None]]:
    if zone is None:
        return []
    tenant = tenant_of(path)
    if tenant is None or is_pattern(path) or path != account(tenant):
        raise CommandError(f"A time zone is a tenant's, and {path} is none; set it with the tenant's own account.")
    return [(tenant, None if zone == "UTC" else zone)]


def _remove(db: Connection, arguments: argparse.Namespace) -> Edit:
    path = _needed(arguments)
    words = {LIMITED[word] for word in LIMITED if getattr(arguments, word)}
    own = [limit for limit in read(db).limits if limit.account == path]
    found = [
        limit
        for limit in own
        if (not words or (limit.meter, limit.window) in words)
        and (arguments.task is None or limit.task == arguments.task)
        and (arguments.model is None or limit.model == arguments.model)
    ]
    if not found:
        has = f"it has {'; '.join(map(shown, own))}" if own else "it has none of its own; see `millstream limits show`"
        raise CommandError(f"Account {path} has no such limit; {has}.")
    return Edit(remove=found)


def _change(settings: Settings, edit: Callable[[Connection], Edit], arguments: argparse.Namespace) -> int:
    """Change limits and print what changed; exit status 0."""
    by, now = arguments.by or login_name(), time.time_ns() // 1_000
    with database(settings) as engine, engine.connect() as db, db.begin() as transaction:
        changed = change(db, edit(db), by, now)
        if getattr(arguments, "dry_run", False):
            transaction.rollback()
    _print_change(changed, arguments.json)
    return 0


def _print_change(changed: Changed, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"version": changed.version, "changes": as_data(changed.differences)}))
        return
    for one in changed.differences:
        old, new = (_words(entry) for entry in (one.before, one.after))
        values = f"{old} → {new}" if old and new else old or new
        print(plain(f"{SIGNS.get(one.action, '~')} {one.subject}: {values}"))
    print("They act with the next request." if changed.differences else "Nothing changes.")


def _words(entry: Any) -> str:
    """A limit or time zone of a change, for people."""
    if entry is None:
        return ""
    if "time_zone" in entry:
        return str(entry["time_zone"])
    return amount_shown(entry["meter"], entry["most"]) + ("" if entry["hard"] else ", soft")


def _export(settings: Settings, out: str | None) -> int:
    with database(settings) as engine, reading(engine) as db:
        text = to_yaml(read(db))
    write_text(out, text)
    return 0


def _show(settings: Settings, arguments: argparse.Namespace) -> int:
    path = _account(arguments)
    now = time.time_ns() // 1_000
    with database(settings) as engine, reading(engine) as db:
        found = uses(db, now, path or PLATFORM)
    if path == PLATFORM:
        found = [use for use in found if use.account == PLATFORM]
    if arguments.json:
        print(json.dumps([_as_json(use) for use in found]))
        return 0
    rows = [
        (
            use.account,
            _limit_words(use.limit),
            *_figures(use),
            moment(use.ends, seconds=True) if use.ends else NOTHING,
            _bar(use),
        )
        for use in found
    ]
    columns = ("account", "limit", "used", "reserved", "left", "resets at (UTC)", "")
    print_table(columns, rows, ("account", "limit"), f"No limit is set{f' for {path}' if path else ''}.")
    return 0


def _limit_words(limit: Limit) -> str:
    return shown(limit) + ("" if limit.hard else ", soft")


def _figures(use: Use) -> tuple[str, str, str]:
    if use.level is None or use.left is None:
        return "each account's own", NOTHING, NOTHING
    used, reserved, left = (
        amount_shown(use.limit.meter, n).split(" ")[0] for n in (use.level.used, use.level.reserved, use.left)
    )
    return used, reserved, left


def _bar(use: Use) -> str:
    """What is used as full blocks, what is held as shaded ones, and what is left as dots."""
    if use.level is None:
        return ""
    most = max(1, use.limit.most)
    used = min(BAR, -(-use.level.used * BAR // most))
    taken = min(BAR, -(-(use.level.used + use.level.reserved) * BAR // most))
    return "█" * used + "▒" * (taken - used) + "·" * (BAR - taken)


def _as_json(use: Use) -> dict[str, Any]:
    limit = use.limit
    return {
        "account": use.account, "of": limit.account, "meter": limit.meter, "window": limit.window, "most": limit.most,
        "sliding": limit.sliding, "hard": limit.hard, "task": limit.task, "model": limit.model,
        "used": use.level and use.level.used, "reserved": use.level and use.level.reserved, "left": use.left,
        "resets_at": use.ends, "percent": use.level and use.level.share(limit),
    }  # fmt: skip
