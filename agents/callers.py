"""Who asks, where requests are signed: the issued keys of a deployment, and what a record's headers prove by them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Protocol

from agents.outgoing import Clock
from config.issued_keys import IssuedKey, open_signing_key
from config.key_encryption import EncryptionKeys
from config.secrets import CredentialError
from core.errors import error
from core.outcome import Record
from core.trust import Caller, Signed, signed_of, untimely
from schemas.events import Error

LOG = logging.getLogger(__name__)
PAUSE_SECONDS = 1.0


class Callers(Protocol):
    """Says for whom a record of the request topic asks."""

    async def of(self, record: Record) -> Caller | Error | None:
        """Whom its key speaks for, or why nobody is believed; None where the request itself says it."""
        ...


class AsTheySay:
    """Trusts whoever may write the topic."""

    async def of(self, record: Record) -> None:
        """Nobody is asked for a signature."""


class SignedCallers:
    """Believes signatures alone, by the keys that were loaded last; nothing is written before one is verified."""

    def __init__(self, keys: EncryptionKeys, clock: Clock) -> None:
        self._keys = keys
        self._clock = clock
        self._issued: dict[str, IssuedKey] = {}
        #: What keys sign with, opened at first use: a service that wraps them is asked once.
        self._opened: dict[str, bytes] = {}

    def load(self, issued: Iterable[IssuedKey]) -> None:
        """Take these keys in place of those before, all at once."""
        before, self._issued = self._issued, {one.key_id: one for one in issued}
        same = {i for i, one in self._issued.items() if one.sealed and i in before and one.binding == before[i].binding}
        self._opened = {key_id: key for key_id, key in self._opened.items() if key_id in same}

    async def of(self, record: Record) -> Caller | Error:
        """Whom the key of a record speaks for, or why it is not believed."""
        signed = signed_of(record.headers)
        if not isinstance(signed, Signed):
            return signed
        key_id = signed.key_id.decode("ascii")
        issued = self._issued.get(key_id)
        if issued is None:
            return error("caller_unknown_key", f"No API key {key_id} was issued here; sign with one that was.")
        if issued.sealed is None:
            return error("caller_key_revoked", f"API key {key_id} is revoked; ask for another one.")
        try:
            signing_key = self._opened.get(key_id) or await self._open(issued)
        except CredentialError as why:
            LOG.error("A signature cannot be verified. %s", why)
            return error(
                "pipeline_internal", f"What API key {key_id} signs with cannot be read; a log names the cause."
            )
        if self._issued.get(key_id) != issued:
            return await self.of(record)
        if not signed.by(signing_key, record.value or b""):
            return error(
                "caller_bad_signature",
                f"The signature is not that of API key {key_id} over this value and time; sign the bytes that are sent.",
            )
        # A time that the broker gave does not change while a record waits in its log.
        at = record.timestamp_us if record.by_broker else self._clock()
        if issued.expires_at is not None and at >= issued.expires_at:
            return error("caller_key_expired", f"The time of API key {key_id} is over; ask for another one.")
        return untimely(signed, at) or issued.caller

    async def _open(self, issued: IssuedKey) -> bytes:
        """What a key signs with; waits while the service that wraps it is away."""
        while True:
            try:
                opened = await asyncio.to_thread(open_signing_key, self._keys, issued)
            except CredentialError as why:
                if not why.passing:
                    raise
                LOG.warning("%s Trying again.", why)
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                if self._issued.get(issued.key_id) == issued:
                    self._opened[issued.key_id] = opened
                return opened
