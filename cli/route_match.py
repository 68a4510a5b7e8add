"""`millstream routes match`: the choice that a worker would make now for such a request."""

from __future__ import annotations

import argparse
import json
import time
import uuid

from agents.planning import Planner
from agents.signals import FRESH_US
from cli.errors import CommandError
from cli.lines import request_of
from cli.registry_change import database, json_option, print_table
from config import credentials, health
from config.database import reading
from config.key_encryption import EncryptionKeys
from config.keyring import Keyring
from config.registry import complete
from config.registry_entries import RegistryInvalid
from config.registry_file import time_of
from config.registry_store import contents_of, version_of
from config.settings import Settings
from config.tasks import Prepared
from core.routing import NoChoice


def describe(parser: argparse.ArgumentParser) -> None:
    """What can be said of the request."""
    for name in ("plan", "task", "tenant", "model", "user", "project"):
        parser.add_argument(f"--{name}", help=f"the request's {name}")
    parser.add_argument(
        "--prompt", default="Hello.", metavar="TEXT", help="its text, which has a price and a complexity"
    )
    parser.add_argument("--request-id", metavar="ID", help="where a share goes by it")
    parser.add_argument("--at", metavar="TIME", help="when, as ISO 8601 (default: now)")
    json_option(parser)


def match(settings: Settings, arguments: argparse.Namespace) -> int:
    """Print the route of a request, and what becomes of each model and why; 1 when none can answer it.

    Prices, limits of the models, and how providers do as the workers know it are taken into account; what an account has left is not.
    """
    real_now = time.time_ns() // 1_000
    try:
        now = time_of(arguments.at, "--at has a value") if arguments.at else real_now
    except RegistryInvalid as why:
        raise CommandError(str(why)) from None
    with database(settings) as engine, reading(engine) as db:
        registry = complete(contents_of(db), settings, now, version_of(db))
        standings = health.standings_since(db, real_now - FRESH_US)
        keyring = Keyring(EncryptionKeys(()), credentials.stored(db))
    planner = Planner(
        lambda: registry, lambda: standings, settings.models, settings.default_max_output_tokens,
        default_price=settings.default_price, own_key=keyring.has_own,
    )  # fmt: skip
    line = {name: getattr(arguments, name) for name in ("plan", "task", "model", "user", "project", "prompt")}
    line |= {"tenant": arguments.tenant or "default", "request_id": arguments.request_id or str(uuid.uuid4())}
    found = planner.plan(Prepared(request_of(line, {}, "The request"), arguments.task, None, False), now)
    if isinstance(found, NoChoice):
        route, decisions, refused = found.route and found.route.name, [*found.decisions], found.error["message"]
    else:
        route, decisions, refused = found.fields["route"], found.fields["decisions"], None
    if arguments.json:
        print(json.dumps({"route": route, "decisions": decisions, "refused": refused}))
        return 1 if refused else 0
    print(f"Route {route}." if route else "No route matches." if refused is None else refused)
    rows = [(one["model"], "kept" if one["kept"] else "dropped", one["reason"]) for one in decisions]
    if rows:
        print_table(("model", "", "reason"), rows, "reason")
    return 1 if refused else 0
