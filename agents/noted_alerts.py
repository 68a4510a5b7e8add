"""Publish the alerts that the ledger notes, from one worker at a time, each once however often workers die."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import ClassVar, Generic, TypeVar

from agents.outgoing import Clock, Encoder
from config import health
from config.transactions import Transactions
from core.outcome import Outgoing
from schemas.events import LlmAlert

LOG = logging.getLogger(__name__)
LEASE_US = 10_000_000

T = TypeVar("T")


class NotedAlerts(ABC, Generic[T]):
    """Publishes what the ledger noted; `publish` returns when the broker has it, `owner` is this worker's id in the ledger.

    A worker that dies between the two leaves the alert to the next one, which publishes the same bytes under the same id.
    """

    #: The duty in the ledger, and how often to look.
    lease: ClassVar[str]
    look_seconds: ClassVar[float]

    def __init__(
        self, transactions: Transactions, encoder: Encoder, publish: Callable[[tuple[Outgoing, ...]], Awaitable[None]],
        clock: Clock, owner: str,
    ) -> None:  # fmt: skip
        self._transactions = transactions
        self._encoder = encoder
        self._publish = publish
        self._clock = clock
        self._owner = owner

    async def run(self) -> None:
        """Go on until cancelled; then another worker may take over at once."""
        try:
            while True:
                try:
                    while await self.look():
                        pass
                except Exception as why:
                    # Its type only: a database's text can hold its address.
                    LOG.warning(
                        "%s could not be published (%s); trying again.", self.lease.capitalize(), type(why).__name__
                    )
                await asyncio.sleep(self.look_seconds)
        finally:
            await self._transactions.call(health.let_go, self.lease, self._owner)

    async def look(self) -> int:
        """Publish what waits; how many alerts there were, none while another worker publishes."""
        now = self._clock()
        noted = await self._waiting(now, now + LEASE_US)
        if noted:
            await self._publish(tuple(self._encoder.alert(self._alert(each)) for each in noted))
            await self._mark(noted, self._clock())
        return len(noted)

    @abstractmethod
    async def _waiting(self, now: int, until: int) -> Sequence[T]:
        """What no alert is published of, where this worker has the duty, which it then has until then."""

    @abstractmethod
    async def _mark(self, noted: Sequence[T], now: int) -> None:
        """State that the alerts are with the broker."""

    @abstractmethod
    def _alert(self, noted: T) -> LlmAlert:
        """The alert, which follows from what was noted alone."""
