"""Planted keys of credentials, through the real SDKs into every failure of the simulator: none of them is shown anywhere."""

from __future__ import annotations

import logging
import traceback
from typing import Any

import pytest

from agents.providers.base import Provider
from config.credentials import Credential
from config.key_encryption import EncryptionKeys, LocalKey
from config.keyring import Keyring, Picked
from config.secrets import Binding, seal
from config.settings import Key
from core.errors import ProviderError
from core.facts import Attempt, response, usage
from core.reply import Reply
from local.simulator.directives import FAULTS
from schemas.codec import Codec
from schemas.events import LlmCall
from tests.contract.calling import ATTEMPT, every_provider, llm_call, run, settings_of
from tests.contract.simulator import Simulator

NOW = 1_795_258_680_000_000
KEYS = EncryptionKeys((LocalKey("k1", bytes(32)),))
#: Of no form that the cleaning of messages knows, so that only the key of the call itself can keep it out of them.
PLATFORMS, TENANTS, SETTINGS = "planted-platform-5f0c2a", "planted-tenant-81d3be", "planted-settings-77aa10"
STATUSES = (400, 401, 403, 404, 408, 409, 413, 422, 429, 500, 502, 503, 504, 529)


def credential(credential_id: str, provider: str, tenant: str | None, secret: str) -> Credential:
    """A stored credential."""
    sealed = seal(KEYS, Binding(credential_id, provider, tenant, secret[-4:], 1), secret)
    return Credential(credential_id, provider, tenant, "", secret[-4:], 1, True, NOW, None, None, 1, sealed)


def calls(name: str) -> list[tuple[LlmCall, float]]:
    """A call for every way to fail and for two answers, each with the seconds it may take."""
    told: list[dict[str, Any]] = [{"status": status} for status in STATUSES]
    told += [{"fault": fault} for fault in FAULTS if fault != "hang"]
    told += [{"retry_after": 2}, {"retry_after_date": 60}, {"missing_usage": True}, {}]
    return [(llm_call(name, directive=each), 20.0) for each in told] + [
        (llm_call(name, directive={"fault": "hang"}), 0.3)
    ]


@every_provider
@pytest.mark.parametrize(("tenant", "planted"), [("acme", TENANTS), ("globex", PLATFORMS), ("nobody", None)])
def test_a_planted_key_is_shown_nowhere(
    simulator: Simulator, caplog: pytest.LogCaptureFixture, name: str, tenant: str, planted: str | None
) -> None:
    """No exception, traceback with its variables, log record down to DEBUG, representation or event holds any of the keys."""
    caplog.set_level(logging.DEBUG)
    for logger in [logging.getLogger(), *(logging.getLogger(one) for one in logging.Logger.manager.loggerDict)]:
        caplog.set_level(logging.DEBUG, logger.name)
    held = [credential("cr-tenant", name, "acme", TENANTS)]
    if tenant != "nobody":
        held.append(credential("cr-platform", name, None, PLATFORMS))
    ring = Keyring(KEYS, held)
    picked = ring.pick(name, tenant, NOW, 0.5)
    assert getattr(picked.open(), "secret", None) == planted
    shown: list[str] = [repr(ring), repr(picked), repr(held), repr(settings_of(name, simulator.url, SETTINGS))]

    async def ask_all(made: Provider) -> None:
        for asked, timeout in calls(name):
            result, told = await ask(made, asked, timeout, picked.open())
            shown.extend((*told, *events(asked, result, picked)))

    run(settings_of(name, simulator.url, SETTINGS), ask_all)
    assert len(simulator.calls()) == len(calls(name))
    shown += [f"{record.getMessage()} {record.__dict__}" for record in caplog.records]
    everything = "\n".join(shown)
    assert picked.credential_id is None or f"the credential {picked.credential_id}" in everything
    for secret in (PLATFORMS, TENANTS, SETTINGS):
        assert secret not in everything, everything[max(0, everything.index(secret) - 300) :][:400]


async def ask(
    made: Provider, asked: LlmCall, timeout: float, key: Key | None
) -> tuple[Reply | ProviderError, list[str]]:
    """What a call ends with, and all that a log or a debugger could show of it."""
    try:
        reply = await made.call(asked, ATTEMPT, timeout, key)
    except ProviderError as failed:
        frames = traceback.TracebackException.from_exception(failed, capture_locals=True).format()
        return failed, [*frames, repr(failed), repr(failed.args), repr(vars(failed))]
    return reply, [repr(reply)]


def events(asked: LlmCall, result: Reply | ProviderError, picked: Picked) -> list[str]:
    """The events that tell of a call, as they go onto the topics."""
    attempt, failed = Attempt(ATTEMPT, 1, "first", NOW), result if isinstance(result, ProviderError) else None
    fact = usage(asked, attempt, result, NOW, None)
    fact["credential_id"], fact["credential_owner"] = picked.credential_id, picked.owner
    answer = response(
        asked, "failed" if failed else "completed", NOW, attempt=attempt, spent=[],
        reply=result if isinstance(result, Reply) else result.reply, failure=failed.error if failed else None,
    )  # fmt: skip
    encoded = (Codec().encode("LlmUsage", fact), Codec().encode("LlmResponse", answer))
    return [repr(fact), repr(answer), *(value.decode("latin-1") for value in encoded)]
