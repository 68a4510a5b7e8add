"""A streamed answer as events on the chunk topic, while its call goes on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from agents.outgoing import Clock, Encoder
from agents.providers.base import Listener
from core.facts import Attempt
from core.outcome import Outgoing
from core.reply import Reply
from schemas.events import LlmCall, LlmChunk

LOG = logging.getLogger(__name__)
#: The most characters of one chunk, far below what the broker takes as a record.
LONGEST_CHUNK = 50_000

Send = Callable[[tuple[Outgoing, ...]], Awaitable[None]]


class Chunks:
    """Publishes what one call's answer adds, in order; leaving its context waits until the broker has all of it.

    One chunk is on its way at a time, and what comes meanwhile is joined into the next one: a slow broker gets fewer and longer
    chunks. Nothing of it is stored, so after a crash the answer begins again under a higher `attempt`; the final answer is
    whole whatever became of the chunks. A call whose request wants no stream goes through it unheard.
    """

    def __init__(
        self, call: LlmCall, attempt: Attempt, encoder: Encoder, trace: bytes, send: Send, clock: Clock
    ) -> None:
        self._request = call["request"]
        self._attempt = attempt
        self._encoder = encoder
        self._trace = trace
        self._send = send
        self._clock = clock
        self._waiting: list[str] = []
        self._came_at = 0
        self._index = 0
        self._sender: asyncio.Task[None] | None = None
        self._first_at: int | None = None
        self._received = 0
        #: What the provider had told of its usage when the call was given up.
        self.used: Reply | None = None

    @property
    def listener(self) -> Listener | None:
        """What hears the answer, None where the request wants no stream."""
        return self if self._request["stream"] else None

    @property
    def attempt(self) -> Attempt:
        """The attempt with the time of its first piece and the characters that have come."""
        if self.listener is None:
            return self._attempt
        return replace(self._attempt, first_token_at=self._first_at, received_chars=self._received)

    def delta(self, text: str) -> None:
        """See `Listener`."""
        self._came_at = self._clock()
        if self._first_at is None:
            self._first_at = self._came_at
        self._received += len(text)
        if text:
            self._waiting.append(text)
            if self._sender is None or self._sender.done():
                self._sender = asyncio.create_task(self._send_waiting())

    def gave_up(self, used: Reply | None) -> None:
        """See `Listener`."""
        self.used = used

    async def __aenter__(self) -> Chunks:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        if self._sender is None:
            return
        if kind is not None:
            self._sender.cancel()
        try:
            await self._sender
        except Exception as bug:
            LOG.error("Chunks of attempt %s could not be sent: %s.", self._attempt.attempt_id, type(bug).__name__)
        except asyncio.CancelledError:
            self._sender.cancel()
            if kind is None:
                raise

    async def _send_waiting(self) -> None:
        while self._waiting:
            text = "".join(self._waiting)
            self._waiting = [text[LONGEST_CHUNK:]] if len(text) > LONGEST_CHUNK else []
            chunk = LlmChunk(
                request_id=self._request["request_id"],
                tenant=self._request["tenant"],
                attempt_id=self._attempt.attempt_id,
                attempt=self._attempt.number,
                index=self._index,
                text=text[:LONGEST_CHUNK],
                at=self._came_at,
            )
            self._index += 1
            await self._send((self._encoder.chunk(chunk, self._trace),))
