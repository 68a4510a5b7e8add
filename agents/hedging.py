"""A second call beside one whose first token is late, and the end of the call that another one was faster than."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext

from agents.cancel import Cancellation
from agents.chunks import Chunks, Send
from agents.ledgers import Ledgers
from agents.outgoing import Encoder
from config import ledger
from core.errors import error
from core.fallback import at_candidate
from schemas.events import LlmCall

LOG = logging.getLogger(__name__)
POLL_SECONDS = 0.25


class Hedges:
    """Publishes hedges as calls for other lanes, and asks the ledger whether another call has answered."""

    def __init__(self, ledgers: Ledgers, encoder: Encoder, send: Send) -> None:
        self._ledgers = ledgers
        self._encoder = encoder
        self._send = send

    def watch(
        self, call: LlmCall, number: int, to: int | None, chunks: Chunks, cancellation: Cancellation, trace: bytes
    ) -> AbstractAsyncContextManager[None]:  # fmt: skip
        """While call `number` of a request goes on: call the candidate at `to` as well when it is late, None for not at all.

        Then, and while the call is itself a hedge, it is broken off as soon as the ledger has the answer of another call.
        """
        if to is None and call["beside"] is None:
            return nullcontext()
        return self._watched(call, number, to, chunks, cancellation, trace)

    @asynccontextmanager
    async def _watched(
        self, call: LlmCall, number: int, to: int | None, chunks: Chunks, cancellation: Cancellation, trace: bytes
    ) -> AsyncIterator[None]:  # fmt: skip
        task = asyncio.create_task(self._watch(call, number, to, chunks, cancellation, trace))
        try:
            yield
        finally:
            task.cancel()
            [ended] = await asyncio.gather(task, return_exceptions=True)
            if isinstance(ended, Exception):
                # The call itself does not depend on it. Its type only: a database's text can hold its address.
                LOG.error("Call %d could not be hedged: %s.", number, type(ended).__name__)

    async def _watch(
        self, call: LlmCall, number: int, to: int | None, chunks: Chunks, cancellation: Cancellation, trace: bytes
    ) -> None:
        if to is not None:
            await asyncio.sleep((call["candidates"][call["candidate"]]["hedge_after_us"] or 0) / 1_000_000)
            if chunks.attempt.first_token_at is not None:
                return
            hedge: LlmCall = {**at_candidate(call, to), "beside": number}
            await self._send((self._encoder.call(hedge, trace),))
        of_request = self._ledgers.of(unchecked=call["unchecked"])
        superseded = "Another candidate answered first; what this call used until then is accounted."
        while True:
            answered = (await of_request.run(ledger.calls_of, call["request"]["request_id"])).answered
            # Nothing is under way yet while its key is fetched.
            if answered and cancellation.break_off(error("pipeline_superseded", superseded)):
                return
            await asyncio.sleep(POLL_SECONDS)
