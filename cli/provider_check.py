"""`millstream providers test`: one cheap real call, and what of it worked: reach, auth, model, latency."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
import uuid
from dataclasses import asdict, dataclass
from typing import cast

from agents.providers import provider as connect
from cli.amounts import duration, plain
from cli.errors import CommandError
from cli.lines import request_of
from cli.registry_change import database, json_option, print_table, read
from cli.stackfile import address_shown
from config.credentials import open_key, platform_credentials
from config.database import reading
from config.key_encryption import encryption_keys
from config.known_models import cheap_model
from config.registry import provider_settings
from config.secrets import CredentialError
from config.settings import PROVIDER_NAMES, Key, Settings
from core.attempts import CHECK
from core.errors import ProviderError
from core.registry import TIERS, Provider, Registry
from schemas.events import Error, LlmCall

PROMPT = "Answer with the word ok."
MOST_OUTPUT_TOKENS = 16
NOT_REACHED = ("provider_connection", "provider_timeout")
OK, FAILED, NOT_TRIED = "ok", "failed", "not tried"


@dataclass(frozen=True, slots=True)
class Result:
    """What one call showed; `latency_us` is how long it took, None where nothing was sent."""

    provider: str
    model: str
    reach: str
    auth: str
    answer: str
    latency_us: int | None
    error: str | None

    @property
    def good(self) -> bool:
        """Whether the provider answered."""
        return self.answer == OK


def describe(parser: argparse.ArgumentParser) -> None:
    """Which provider, and what to call."""
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--model", metavar="NAME", help="the model to call, by its name there (default: a cheap one)")
    parser.add_argument(
        "--timeout", type=float, default=30.0, metavar="SECONDS", help="give up after so long (default 30)"
    )
    json_option(parser)


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Call and print what worked; 0 when the provider answered, else 1."""
    if arguments.timeout <= 0:
        raise CommandError(f"--timeout {arguments.timeout:g} is not above 0.")
    contents, registry = read(settings)
    provider = registry.providers.get(arguments.name)
    if provider is None or provider.kind not in PROVIDER_NAMES:
        raise CommandError(
            f"There is no provider {arguments.name!r} to call; there are {', '.join(registry.providers)}."
        )
    model = arguments.model or _cheap_model(provider, registry, [*contents.models])
    result = asyncio.run(call(settings, provider, model, arguments.timeout, _stored_key(settings, provider.name)))
    if arguments.json:
        print(json.dumps(asdict(result)))
    else:
        rows = [
            ("reach", result.reach), ("auth", result.auth), ("model", f"{plain(model)}: {result.answer}"),
            ("latency", duration(result.latency_us)),
        ]  # fmt: skip
        address = address_shown(provider.base_url)
        print_table((provider.name, ""), [("address", address), *rows] if address else rows, "")
        if result.error:
            print(plain(result.error))
    return 0 if result.good else 1


def _cheap_model(provider: Provider, registry: Registry, registered: list[str]) -> str:
    """A registered model of the provider, the weakest first, else the one known to be cheap."""
    own = [m for m in registry.models if m.provider == provider.name and m.enabled and m.full_name in registered]
    if own:
        return min(own, key=lambda model: (TIERS.index(model.tier), model.name)).name
    known = cheap_model(provider.kind)
    if known is None:
        raise CommandError(f"No model of {provider.name} is registered; name one with --model.")
    return known


def _stored_key(settings: Settings, name: str) -> Key | None:
    """The first of the platform's stored keys for a provider, None where the environment's serves."""
    with database(settings) as engine, reading(engine) as db:
        ready = platform_credentials(db, name)
    try:
        return open_key(encryption_keys(settings.key_encryption), ready[0]) if ready else None
    except CredentialError as why:
        raise CommandError(str(why)) from None


async def call(settings: Settings, provider: Provider, model: str, timeout: float, key: Key | None) -> Result:
    """Make the call, at most `timeout` seconds long; without a `key` with the environment's."""
    client = connect(provider_settings(provider, settings))
    began = time.monotonic()
    try:
        await client.call(_call(provider, model), f"{CHECK}{uuid.uuid4()}", timeout, key)
        return Result(provider.name, model, OK, OK, OK, _since(began), None)
    except ProviderError as failed:
        return _failed(provider, model, failed.error, _since(began))
    finally:
        await client.close()


def _failed(provider: Provider, model: str, error: Error, took: int) -> Result:
    code, message = error["code"], error["message"]
    if code in NOT_REACHED:
        return Result(provider.name, model, FAILED, NOT_TRIED, NOT_TRIED, took, message)
    if code == "provider_auth" and error["provider_status"] is None:
        return Result(provider.name, model, NOT_TRIED, "no key", NOT_TRIED, None, message)
    if code == "provider_auth":
        return Result(provider.name, model, OK, FAILED, NOT_TRIED, took, message)
    return Result(provider.name, model, OK, OK, code.removeprefix("provider_").replace("_", " "), took, message)


def _since(began: float) -> int:
    return round((time.monotonic() - began) * 1_000_000)


def _call(provider: Provider, model: str) -> LlmCall:
    request = request_of({"prompt": PROMPT}, {"model": f"{provider.name}/{model}"}, "The test")
    fields = {
        "request": request, "provider": provider.name, "model": model, "max_output_tokens": MOST_OUTPUT_TOKENS,
        "admitted_at": request["created_at"], "reserved_nano_usd": None,
    }  # fmt: skip
    return cast(LlmCall, fields)
