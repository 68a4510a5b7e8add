"""The checker of the providers' health, with the tools of a worker process."""

from __future__ import annotations

import asyncio

from agents.chunks import Send
from agents.health import Checker
from agents.outgoing import Encoder
from config.registry import provider_settings
from core.health import HealthRule
from core.registry import Provider
from streams.tools import Tools


def checker(tools: Tools, send: Send) -> Checker:
    """What checks every provider while this worker has the duty; `send` publishes its alerts."""
    s, keyring = tools.settings, tools.keyring

    async def key_of(served: Provider) -> str | None:
        """The platform's key of a provider: one of the database, else that of the settings."""
        held = await asyncio.to_thread(keyring.pick(served.name, "", tools.clock(), 0.0).open)
        return held.secret if held is not None else provider_settings(served, s).api_key

    tools.metrics.routing.add_checks(tools.registry().providers)
    rule = HealthRule(every_us=int(s.health_check_seconds * 1_000_000))
    encoder = Encoder(tools.codec, "complete", tools.clock)
    return Checker(
        tools.registry, key_of, tools.transactions, encoder, send, tools.clock, tools.owner, rule,
        tools.metrics.routing.health_checked,
    )  # fmt: skip
