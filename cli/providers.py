"""`millstream providers`: who can be called, and whether a call goes through."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from cli import provider_check
from cli.keys import replace_platforms, secret_options
from cli.registry_change import actions, change_options, commit, database, json_option, print_table, read
from cli.registry_options import switch_option, with_options
from cli.stackfile import address_shown, is_simulated, stack_settings
from config.credentials import Credential, platform_credentials
from config.database import reading
from config.health import health_of
from config.registry import provider_settings
from config.registry_edits import Edit, add, enable, found, put, set_default
from config.registry_entries import plain
from config.settings import PROVIDER_NAMES, Settings
from core.health import NOT_CHECKED
from core.registry import Provider
from core.standing import Health

FIELDS = ("kind", "base_url", "region", "concurrency", "enabled")
KEYLESS = ("echo",)


def describe(parser: argparse.ArgumentParser) -> None:
    """The actions and their options."""
    action = actions(parser)
    json_option(action.add_parser("list", help="every provider, where it comes from and whether it has a key"))
    for name, text in (("add", "register a provider"), ("set", "change a registered provider")):
        changing = action.add_parser(name, help=text, allow_abbrev=False)
        changing.add_argument("name", metavar="NAME", help="its name here, which is also its lane's")
        changing.add_argument(
            "--kind", choices=PROVIDER_NAMES, help="the API that it speaks (default: the one of its name)"
        )
        changing.add_argument("--base-url", metavar="URL", help="its address; `none` for the kind's own")
        changing.add_argument("--region", help="where it runs; `none` for no word on it")
        changing.add_argument("--concurrency", metavar="N", help="calls at once; `none` for the deployment's bound")
        switch_option(changing, "enabled", "enabled", "disabled", "let it serve")
        change_options(changing)
    for name, text in (
        ("enable", "let a provider serve"), ("disable", "let a provider serve no more"),
        (
            "set-default",
            "make a provider the default: of models asked for without one, and of the default routes",
        ),
    ):  # fmt: skip
        changing = action.add_parser(name, help=text, allow_abbrev=False)
        changing.add_argument("name", metavar="NAME")
        change_options(changing)
    rotating = action.add_parser("rotate-key", help="store a new key of the platform's in place of the one there is")
    rotating.add_argument("name", metavar="NAME")
    secret_options(rotating)
    provider_check.describe(action.add_parser("test", help="make one cheap real call and say what worked"))


def run(arguments: argparse.Namespace) -> int:
    """Do what the action says."""
    settings = stack_settings()
    if arguments.action == "list":
        return _list(settings, arguments.json)
    if arguments.action == "test":
        return provider_check.run(settings, arguments)
    if arguments.action == "rotate-key":
        return replace_platforms(arguments, settings)
    name: str = arguments.name
    edits: dict[str, Edit] = {
        "add": lambda contents: add(with_options(Provider(name, name), arguments, FIELDS))(contents),
        "set": lambda contents: put(with_options(found(contents, Provider, name), arguments, FIELDS))(contents),
        "enable": enable(name, True),
        "disable": enable(name, False),
        "set-default": set_default(name),
    }
    return commit(settings, edits[arguments.action], arguments)


def _list(settings: Settings, as_json: bool) -> int:
    contents, registry = read(settings)
    source = "database" if contents.providers else "environment"
    with database(settings) as engine, reading(engine) as db:
        keys = {name: _key(settings, p, platform_credentials(db, name)) for name, p in registry.providers.items()}
        found = health_of(db)
    health = {name: found.get(name, NOT_CHECKED).state for name in registry.providers}
    providers = registry.providers.values()
    if as_json:
        shown = [{**plain(p), "health": health[p.name], "from": source, "key": keys[p.name]} for p in providers]
        print(json.dumps(shown))
        return 0
    rows = [
        (
            p.name, p.kind, " ".join(filter(None, (address_shown(p.base_url), p.region and f"({p.region})"))),
            _state(p, health[p.name]), source, keys[p.name],
        )
        for p in providers
    ]  # fmt: skip
    print_table(("provider", "kind", "address", "state", "from", "key"), rows, "address", "There is no provider.")
    return 0


def _state(provider: Provider, health: Health) -> str:
    parts = ["enabled" if provider.enabled else "disabled"]
    parts += ["default"] if provider.default else []
    return ", ".join(parts if health == "unknown" else [*parts, health])


def _key(settings: Settings, provider: Provider, stored: Sequence[Credential]) -> str:
    """Which key a provider is called with: the last four characters of the stored ones, else whether the environment has one."""
    if stored:
        return ", ".join(f"…{one.last_four}" if one.last_four else one.credential_id for one in stored)
    if provider.kind in KEYLESS:
        return "not needed"
    if provider.kind not in PROVIDER_NAMES:
        return "unknown kind"
    if is_simulated(provider.base_url):
        return "simulator's"
    return "environment's" if provider_settings(provider, settings).api_key else "not set"
