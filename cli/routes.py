"""`millstream routes`: which models answer which requests, and which route a request would take."""

from __future__ import annotations

import argparse
import json
from typing import Any, get_args

from cli import route_match
from cli.registry_change import actions, change_options, commit, json_option, print_table, read
from cli.registry_options import switch_option, with_options
from cli.stackfile import stack_settings
from config.registry_edits import Edit, add, found, put, remove
from config.registry_entries import plain
from config.registry_file import time_of, time_text
from config.settings import Settings
from core.registry import TIERS, Route, StickyKey, Strategy

FIELDS = (
    "targets", "plan", "task", "tenant", "model", "precedence", "enabled", "valid_from", "valid_until", "share", "sticky",
    "order", "strategies", "quality_floor", "fall_back_on", "max_attempts", "cache_seconds", "cache_shared", "hedge",
    "degrade_from", "degrade_to",
)  # fmt: skip


def describe(parser: argparse.ArgumentParser) -> None:
    """The actions and their options."""
    action = actions(parser)
    json_option(action.add_parser("list", help="every route, the default ones where none is registered"))
    for name, text in (("add", "add a route"), ("set", "change a route; what no option names stays")):
        changing = action.add_parser(name, help=text, allow_abbrev=False)
        changing.add_argument("name", metavar="NAME")
        _requests(changing)
        _choice(changing)
        change_options(changing)
    removing = action.add_parser("remove", help="remove a route", allow_abbrev=False)
    removing.add_argument("name", metavar="NAME")
    change_options(removing)
    matching = "show the route of a request and what becomes of each model, as a worker would choose now"
    route_match.describe(action.add_parser("match", help=matching, allow_abbrev=False))


def _requests(parser: argparse.ArgumentParser) -> None:
    """Which requests a route is for."""
    for name in ("plan", "task", "tenant"):
        parser.add_argument(f"--{name}", metavar="PATTERN", help=f"the {name}s that it is for (default: *)")
    parser.add_argument(
        "--model", metavar="PATTERN", help="the models asked for; `none` for requests that name none (default)"
    )
    parser.add_argument(
        "--precedence", metavar="N", help="of the routes that match, the one with the highest holds (default: 0)"
    )
    parser.add_argument("--valid-from", metavar="TIME", help="not before, as ISO 8601; `none` for always")
    parser.add_argument("--valid-until", metavar="TIME", help="and before, as ISO 8601; `none` for always")
    parser.add_argument("--share", metavar="PERCENT", help="of the requests by --sticky (default: 100)")
    parser.add_argument("--sticky", choices=get_args(StickyKey), help="what a share goes by (default: user)")
    switch_option(parser, "enabled", "enabled", "disabled", "let it hold")


def _choice(parser: argparse.ArgumentParser) -> None:
    """Which models a route leads to, and how."""
    parser.add_argument("--target", dest="targets", action="append", metavar="MODEL[=WEIGHT]",
                        help="a model or an alias, repeatable, the first the best")  # fmt: skip
    parser.add_argument("--order", choices=("priority", "weighted"), help="of the targets (default: priority)")
    parser.add_argument("--strategy", dest="strategies", action="append", choices=(*get_args(Strategy), "none"),
                        help="a tie-breaker before the order, repeatable, the first the strongest")  # fmt: skip
    parser.add_argument("--quality-floor", choices=(*TIERS, "none"), help="the weakest tier that will do")
    parser.add_argument("--fall-back-on", action="append", metavar="CODE",
                        help="an error that moves on to the next model beside those that always do, repeatable")  # fmt: skip
    parser.add_argument("--max-attempts", metavar="N", help="calls at most; `none` for the deployment's bound")
    parser.add_argument("--cache-seconds", metavar="N", help="how long answers are kept; `none` for not at all")
    switch_option(parser, "cache_shared", "cache-shared", "cache-apart", "let tenants share the kept answers")
    switch_option(parser, "hedge", "hedge", "no-hedge", "call another provider's model as well when one is late")
    parser.add_argument("--degrade-from", metavar="PERCENT",
                        help="from this share of a limit on, call none but --degrade-to; `none` for never")  # fmt: skip
    parser.add_argument("--degrade-to", action="append", metavar="MODEL", help="a cheaper target, repeatable")


def run(arguments: argparse.Namespace) -> int:
    """Do what the action says."""
    settings = stack_settings()
    if arguments.action == "list":
        return _list(settings, arguments.json)
    if arguments.action == "match":
        return route_match.match(settings, arguments)
    name: str = arguments.name
    edits: dict[str, Edit] = {
        "add": lambda contents: add(_given(Route(name, ()), arguments))(contents),
        "set": lambda contents: put(_given(found(contents, Route, name), arguments))(contents),
        "remove": remove(Route, name),
    }
    return commit(settings, edits[arguments.action], arguments)


def _given(route: Route, arguments: argparse.Namespace) -> Route:
    """The route with what the options say; `RegistryInvalid` names a value that cannot be used."""
    given = argparse.Namespace(**vars(arguments))
    for field in ("valid_from", "valid_until"):
        if (text := getattr(given, field)) not in (None, "none"):
            setattr(given, field, time_of(text, f"Route {route.name} has a {field}"))
    if given.targets is not None:
        given.targets = [_target(text) for text in given.targets]
    return with_options(route, given, FIELDS)


def _target(text: str) -> dict[str, Any]:
    model, sign, weight = text.rpartition("=")
    return {"model": model, "weight": weight} if sign else {"model": text}


def _list(settings: Settings, as_json: bool) -> int:
    contents, registry = read(settings)
    source = "database" if contents.routes else "default"
    routes = sorted(registry.routes, key=lambda route: (-route.precedence, route.name))
    if as_json:
        print(json.dumps([{**plain(route), "from": source} for route in routes]))
        return 0
    rows = [(r.name, r.plan, r.task, _targets_of(r), ", ".join(_unusual(r))) for r in routes]
    columns = ("route", "plan", "task", "targets", "terms")
    print_table(columns, rows, ("targets", "terms"), "There is no route; requests have to name a model.")
    if rows and not contents.routes:
        print("\nThese are the default routes; they hold until one is registered.")
    return 0


def _targets_of(route: Route) -> str:
    return ", ".join(t.model if t.weight == 1 else f"{t.model}={t.weight}" for t in route.targets)


def _unusual(route: Route) -> list[str]:
    """What a route says beside its targets."""
    parts = [] if route.enabled else ["disabled"]
    parts += [f"tenant {route.tenant}"] if route.tenant != "*" else []
    parts += [f"asked for {route.model}"] if route.model is not None else []
    parts += [f"precedence {route.precedence}"] if route.precedence else []
    parts += [f"{route.share:f} % by {route.sticky}"] if route.share != 100 else []
    parts += [f"from {time_text(route.valid_from)}"] if route.valid_from is not None else []
    parts += [f"until {time_text(route.valid_until)}"] if route.valid_until is not None else []
    parts += (
        [f"by {' then '.join((*route.strategies, route.order))}"]
        if route.strategies or route.order != "priority"
        else []
    )
    parts += [f"from {route.quality_floor} up"] if route.quality_floor else []
    parts += [f"kept {route.cache_seconds:,} s"] if route.cache_seconds else []
    if route.degrade_from is not None:
        parts += [f"only {', '.join(route.degrade_to)} from {route.degrade_from} % of a limit on"]
    return parts + (["hedged"] if route.hedge else [])
