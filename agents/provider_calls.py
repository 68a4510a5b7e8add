"""Make one provider call: with its key and in its time, streamed where that is asked for, hedged where it is late."""

from __future__ import annotations

import asyncio
import logging

from agents.cancel import Cancellation, Cancelled
from agents.chunks import Chunks, Send
from agents.hedging import Hedges
from agents.outgoing import Clock, Encoder
from agents.providers.base import Provider
from agents.structured import checked
from config.keyring import Picked
from config.secrets import CredentialError
from config.settings import Key
from core.errors import ProviderError, error
from core.facts import Attempt
from core.reply import Reply
from schemas.events import LlmCall

LOG = logging.getLogger(__name__)


class ProviderCalls:
    """The calls to one provider, none of which takes longer than `longest` seconds."""

    def __init__(
        self, provider: Provider, encoder: Encoder, hedges: Hedges, send: Send, clock: Clock, longest: float
    ) -> None:  # fmt: skip
        self._provider = provider
        self._encoder = encoder
        self._hedges = hedges
        self._send = send
        self._clock = clock
        self._longest = longest

    async def make(
        self, call: LlmCall, attempt: Attempt, picked: Picked, to: int | None, trace: bytes, cancellation: Cancellation
    ) -> tuple[Attempt, Reply | ProviderError]:
        """Make the call; the attempt with the time of its first token, and what the call ended with.

        When it is late, the candidate at `to` is called as well.
        """
        timeout = self._longest
        if (deadline := call["request"]["deadline"]) is not None:
            timeout = min(timeout, max(0.001, (deadline - self._clock()) / 1_000_000))
        result: Reply | ProviderError
        async with (
            Chunks(call, attempt, self._encoder, trace, self._send, self._clock) as chunks,
            self._hedges.watch(call, attempt.number, to, chunks, cancellation, trace),
        ):
            try:
                key = await _opened(picked)
                asked = self._provider.call(call, attempt.attempt_id, timeout, key, chunks.listener)
                result = checked(call, await cancellation.unless(asked))
            except CredentialError as why:
                result = ProviderError(error("pipeline_internal" if why.passing else "provider_auth", str(why)), "no")
            except Cancelled as cancelled:
                result = cancelled.failure(chunks.used)
            except ProviderError as failed:
                result = failed
            except Exception as bug:
                # Only its type: the text of an unexpected exception can hold what was sent, the key included.
                LOG.error(
                    "Provider %s failed on attempt %s: %s.", call["provider"], attempt.attempt_id, type(bug).__name__
                )
                result = ProviderError(error("pipeline_internal", "The provider module failed on the call."), "maybe")
        return chunks.attempt, result


async def _opened(picked: Picked) -> Key | None:
    """The picked key, None for the one of the settings; opened aside where a service has to be asked."""
    return await asyncio.to_thread(picked.open) if picked.remote else picked.open()
