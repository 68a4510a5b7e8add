"""The checker of the providers' health, with the tools of a worker process."""

from __future__ import annotations

from collections.abc import Sequence

from agents.chunks import Send
from agents.health import Checker, OpenKey
from agents.outgoing import Encoder
from config.registry import provider_settings
from core.health import HealthRule
from core.registry import Provider
from streams.tools import Tools


def checker(tools: Tools, send: Send) -> Checker:
    """What checks every provider while this worker has the duty; `send` publishes its alerts."""
    s, keyring = tools.settings, tools.keyring

    def keys_of(served: Provider) -> Sequence[OpenKey]:
        """The platform's keys of a provider: those of the database, else that of the settings."""
        return keyring.platform_keys(served.name) or [lambda: provider_settings(served, s).api_key]

    tools.metrics.routing.add_checks(tools.registry().providers)
    rule = HealthRule(every_us=int(s.health_check_seconds * 1_000_000))
    encoder = Encoder(tools.codec, "complete", tools.clock)
    return Checker(
        tools.registry, keys_of, tools.transactions, encoder, send, tools.clock, tools.owner, rule,
        tools.metrics.routing.health_checked,
    )  # fmt: skip
