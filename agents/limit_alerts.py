"""Publish an alert for each share of a limit that an account has reached, from one worker at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from agents.outgoing import Clock, Encoder
from config import health, limit_alerts
from config.transactions import Transactions
from core.alerts import limit_share
from core.outcome import Outgoing

LOG = logging.getLogger(__name__)
LEASE = "limit alerts"
LEASE_US = 10_000_000
LOOK_SECONDS = 1.0


class LimitAlerts:
    """Publishes what the ledger noted; `publish` returns when the broker has it, `owner` is this worker's id in the ledger.

    A worker that dies between the two leaves the alert to the next one, which publishes the same bytes under the same id.
    """

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
                    LOG.warning("Alerts of limits could not be published (%s); trying again.", type(why).__name__)
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            await self._transactions.call(health.let_go, LEASE, self._owner)

    async def look(self) -> int:
        """Publish what waits; how many alerts there were, none while another worker publishes."""
        now = self._clock()
        reached = await self._transactions.call(limit_alerts.take_turn, LEASE, self._owner, now, now + LEASE_US)
        if reached:
            await self._publish(tuple(self._encoder.alert(limit_share(each)) for each in reached))
            await self._transactions.call(limit_alerts.published, reached, self._clock())
        return len(reached)
