"""`millstream energy`: what answers cost in credits, and who has how many."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime

from rich.console import Console
from rich.text import Text

from cli.amounts import bar, moment, plain
from cli.errors import CommandError
from cli.registry_change import (
    actions,
    as_data,
    change_options,
    database,
    json_option,
    lines_of,
    login_name,
    print_table,
)
from cli.stackfile import stack_settings
from config import energy, energy_prices
from config.database import reading
from config.energy_audit import Balance, balances, history
from config.settings import Settings
from core.accounts import account
from core.energy import EnergyPrice, credits_shown
from core.registry import TIERS

BAR_WIDTH = 30
#: More than anybody grants, and far from what the database's integers hold.
MOST = 10**15


def describe(parser: argparse.ArgumentParser) -> None:
    """The actions and their options."""
    action = actions(parser)
    price = action.add_parser("price", help="what answers cost", allow_abbrev=False)
    pricing = price.add_subparsers(dest="pricing", required=True, metavar="ACTION")
    for name, text in (("set", "let answers cost so many credits"), ("remove", "take a price away")):
        one = pricing.add_parser(name, help=text, allow_abbrev=False)
        if name == "set":
            one.add_argument("credits", type=int, metavar="CREDITS")
        one.add_argument("--task", metavar="PATTERN", help="answers for these tasks; * stands for any characters")
        which = one.add_mutually_exclusive_group()
        which.add_argument("--model", metavar="PATTERN", help="answers of these models, as PROVIDER/MODEL")
        which.add_argument("--tier", choices=TIERS, help="answers of models of this tier")
        change_options(one)
    json_option(pricing.add_parser("list", help="every price, the one that holds first", allow_abbrev=False))
    giving = action.add_parser("grant", help="give a user credits", allow_abbrev=False)
    giving.add_argument("tenant")
    giving.add_argument("user")
    giving.add_argument("credits", type=int, metavar="CREDITS")
    giving.add_argument("--expires", metavar="TIME", help="take back then what is left: a UTC date or time")
    change_options(giving)
    for name, text, user in (
        ("show", "what users have left", "?"), ("history", "every movement of a user's credits", None),
    ):  # fmt: skip
        showing = action.add_parser(name, help=text, allow_abbrev=False)
        showing.add_argument("tenant")
        showing.add_argument("user", nargs=user)
        json_option(showing)


def run(arguments: argparse.Namespace) -> int:
    """Do what the action says."""
    settings = stack_settings()
    if arguments.action == "price":
        return _list_prices(settings, arguments) if arguments.pricing == "list" else _set_price(settings, arguments)
    does: dict[str, Callable[[Settings, argparse.Namespace], int]] = {
        "grant": _grant, "show": _show, "history": _history,
    }  # fmt: skip
    return does[arguments.action](settings, arguments)


def _set_price(settings: Settings, arguments: argparse.Namespace) -> int:
    credits = arguments.credits if arguments.pricing == "set" else 0
    if not 0 <= credits <= MOST:
        raise CommandError(f"An answer cannot cost {credits:,} credits; give a number from 0 to {MOST:,}.")
    price = EnergyPrice(arguments.task or None, arguments.model or None, arguments.tier, credits)
    put, remove = ([price], []) if arguments.pricing == "set" else ([], [price])
    with database(settings) as engine, engine.begin() as db:
        if remove and price.scope not in {each.scope for each in energy_prices.read(db).prices}:
            raise CommandError(f"There is no energy price for {price.scope}; see `millstream energy price list`.")
        changed = energy_prices.change(db, put, remove, arguments.by or login_name(), _now())
    if arguments.json:
        print(json.dumps({"version": changed.version, "changes": as_data(changed.differences)}))
        return 0
    for line in lines_of(changed.differences):
        print(plain(line))
    print(f"Registry version {changed.version}." if changed.differences else "Nothing changes.")
    return 0


def _list_prices(settings: Settings, arguments: argparse.Namespace) -> int:
    with database(settings) as engine, reading(engine) as db:
        prices = energy_prices.read(db).narrow_first
    if arguments.json:
        print(json.dumps([asdict(price) for price in prices]))
        return 0
    rows = [(price.task or "any", price.model or price.tier or "any", price.credits) for price in prices]
    print_table(("task", "model or tier", "credits"), rows, "task", "Nothing costs energy.")
    return 0


def _grant(settings: Settings, arguments: argparse.Namespace) -> int:
    if not 1 <= arguments.credits <= MOST:
        raise CommandError(f"{arguments.credits:,} credits cannot be granted; give a number from 1 to {MOST:,}.")
    whose, now = account(arguments.tenant, "user", arguments.user), _now()
    expires_at = _time(arguments.expires) if arguments.expires else None
    with database(settings) as engine, engine.begin() as db:
        try:
            grant_id = energy.grant(db, whose, arguments.credits, arguments.by or login_name(), now, expires_at)
        except ValueError as why:
            raise CommandError(str(why)) from None
        left = next(each.left for each in balances(db, whose, now) if each.account == whose)
    if arguments.json:
        print(json.dumps({"grant_id": grant_id, "account": whose, "left": left}))
        return 0
    print(plain(f"{whose} has {credits_shown(left)} left."))
    return 0


def _show(settings: Settings, arguments: argparse.Namespace) -> int:
    whose = account(arguments.tenant, "user", arguments.user) if arguments.user else None
    with database(settings) as engine, reading(engine) as db:
        found = balances(db, whose or f"{account(arguments.tenant)}/user:", _now())
    found = [each for each in found if whose in (None, each.account)]
    if arguments.json:
        print(json.dumps([asdict(each) for each in found]))
        return 0
    _draw(found)
    return 0


def _draw(found: Sequence[Balance]) -> None:
    console = Console(highlight=False)
    if not found:
        console.print("Nobody there was ever granted energy; see `millstream energy grant`.")
    for each in found:
        current = each.left + each.reserved + each.consumed
        filled = bar(each.left, current, BAR_WIDTH)
        said = [f"{each.left:,} of {current:,} left"]
        said += [
            f"{amount:,} {word}"
            for amount, word in (
                (each.reserved, "reserved"), (each.consumed, "consumed"), (each.expired, "expired"),
            )
            if amount
        ]  # fmt: skip
        if each.next_expiry is not None:
            said.append(f"some until {moment(each.next_expiry)}")
        console.print(Text(plain(each.account), style="bold"))
        console.print(Text(f"  {filled:░<{BAR_WIDTH}}  {', '.join(said)}"))


def _history(settings: Settings, arguments: argparse.Namespace) -> int:
    whose = account(arguments.tenant, "user", arguments.user)
    with database(settings) as engine, reading(engine) as db:
        found = list(history(db, whose))
    if arguments.json:
        print(json.dumps([asdict(each) for each in found]))
        return 0
    rows = [(moment(m.at, seconds=True), m.kind, m.credits, m.left, m.request_id) for m in found]
    print_table(("at", "what", "credits", "left", "request"), rows, "request", f"{plain(whose)} never had energy.")
    return 0


def _time(text: str) -> int:
    """Microseconds since 1970 of a date or time, UTC where it does not say."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise CommandError(f"--expires {text!r} is no time; give a date or time such as 2026-12-31.") from None
    return round((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1_000_000)


def _now() -> int:
    return time.time_ns() // 1_000
