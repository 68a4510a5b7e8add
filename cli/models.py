"""`millstream models`: what can be asked for, and what is known of it."""

from __future__ import annotations

import argparse
import json
from typing import get_args

from cli.errors import CommandError
from cli.registry_change import actions, change_options, commit, json_option, print_table, read
from cli.registry_options import switch_option, with_options
from cli.stackfile import stack_settings
from config.known_models import model_of
from config.registry import complete
from config.registry_edits import add, put, remove
from config.registry_entries import Contents, RegistryInvalid, plain
from config.settings import Settings
from core.registry import TIERS, Capability, Model

FIELDS = (
    "aliases",
    "capabilities",
    "context_tokens",
    "tier",
    "enabled",
    "weight",
    "price_override",
    "default_output_tokens",
)

#: Capabilities as letters, so that a list of models fits a terminal.
LETTERS: dict[Capability, str] = {
    "image": "i", "audio": "a", "file": "f", "tools": "t", "structured_output": "s", "reasoning": "r",
}  # fmt: skip


def describe(parser: argparse.ArgumentParser) -> None:
    """The actions and their options."""
    action = actions(parser)
    listing = action.add_parser("list", help="every model, registered or known from the price list", allow_abbrev=False)
    listing.add_argument("--provider", metavar="NAME", help="only this provider's")
    listing.add_argument("--registered", action="store_true", help="only what the database has")
    json_option(listing)
    for name, text in (
        ("add", "register a model; what is known of it holds where no option says otherwise"),
        ("set", "change a model, registered or known"),
    ):  # fmt: skip
        changing = action.add_parser(name, help=text, allow_abbrev=False)
        changing.add_argument("model", metavar="PROVIDER/MODEL")
        changing.add_argument("--alias", dest="aliases", action="append", metavar="NAME",
                              help="another name, repeatable; models with one alias are deployments of one")  # fmt: skip
        changing.add_argument("--capability", dest="capabilities", action="append", choices=(*get_args(Capability), "none"),
                              metavar="NAME", help=f"repeatable: {', '.join(get_args(Capability))}")  # fmt: skip
        changing.add_argument("--context-tokens", metavar="N", help="its context size; `none` for not known")
        changing.add_argument("--default-output-tokens", metavar="N",
                              help="the most it may write where a request sets no limit; `none` for the deployment's")  # fmt: skip
        changing.add_argument("--tier", choices=TIERS)
        changing.add_argument("--weight", metavar="N", help="its part among the deployments of one alias")
        changing.add_argument("--price", dest="price_override", metavar="CLASS=USD,…",
                              help="USD per million tokens by class: input_uncached=0.25,output_text=2; `none` for the price list's")  # fmt: skip
        switch_option(changing, "enabled", "enabled", "disabled", "let it be called")
        change_options(changing)
    removing = action.add_parser("remove", help="forget what is registered of a model", allow_abbrev=False)
    removing.add_argument("model", metavar="PROVIDER/MODEL")
    change_options(removing)


def run(arguments: argparse.Namespace) -> int:
    """Do what the action says."""
    settings = stack_settings()
    if arguments.action == "list":
        return _list(settings, arguments)
    name: str = arguments.model
    if arguments.action == "remove":
        return commit(settings, remove(Model, name), arguments)
    if arguments.price_override not in (None, "none"):
        arguments.price_override = _prices(arguments.price_override)
    setting = arguments.action == "set"

    def edit(contents: Contents) -> Contents:
        model = with_options(_known(contents, settings, name), arguments, FIELDS)
        return (put(model) if setting else add(model))(contents)

    return commit(settings, edit, arguments)


def _known(contents: Contents, settings: Settings, name: str) -> Model:
    """What is registered or known of a model; `RegistryInvalid` for one at no provider."""
    provider_name, _, model = name.partition("/")
    if not model:
        raise RegistryInvalid([f"Model {name!r} is not PROVIDER/MODEL, such as openai/gpt-5-mini."])
    if name in contents.models:
        return contents.models[name]
    providers = complete(contents, settings, 0).providers
    if provider_name not in providers:
        raise RegistryInvalid([f"There is no provider {provider_name!r}; there are {', '.join(providers)}."])
    return model_of(providers[provider_name], model)


def _prices(text: str) -> dict[str, str]:
    prices = {}
    for part in text.split(","):
        name, sign, amount = (word.strip() for word in part.partition("="))
        if not (name and sign and amount):
            raise CommandError(f"--price has {part.strip()!r}; write CLASS=USD, such as output_text=2.50.")
        prices[name] = amount
    return prices


def _list(settings: Settings, arguments: argparse.Namespace) -> int:
    contents, registry = read(settings)
    shown: list[tuple[Model, str]] = [
        (model, "database" if model.full_name in contents.models else "price list")
        for model in sorted(registry.models, key=lambda model: model.full_name)
        if arguments.provider in (None, model.provider)
        and (not arguments.registered or model.full_name in contents.models)
    ]
    if arguments.json:
        print(json.dumps([{**plain(model), "from": source} for model, source in shown]))
        return 0
    rows = [
        (
            model.full_name, model.tier, model.context_tokens, _letters(model), ", ".join(model.aliases),
            ", ".join((*_unusual(model), source)),
        )
        for model, source in shown
    ]  # fmt: skip
    print_table(
        ("model", "tier", "context", "can", "aliases", "from"), rows, ("model", "aliases"), "There is no such model."
    )
    if rows:
        print(f"\ncan: {', '.join(f'{letter} {name}' for name, letter in LETTERS.items())}".replace("_", " "))
    return 0


def _letters(model: Model) -> str:
    return "".join(letter if name in model.capabilities else "-" for name, letter in LETTERS.items())


def _unusual(model: Model) -> list[str]:
    """What sets a model apart from others of its list."""
    parts = [] if model.enabled else ["disabled"]
    parts += [f"weight {model.weight}"] if model.weight != 1 else []
    parts += [f"{model.default_output_tokens:,} tokens out"] if model.default_output_tokens is not None else []
    return parts + (["own price"] if model.price_override is not None else [])
