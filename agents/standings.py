"""The standings of providers and models as all workers see them: told, heard and kept fresh through the database."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from agents.outgoing import Clock
from agents.signals import FRESH_US, Signals
from config import health
from config.transactions import Transactions
from core.standing import Standing

LOG = logging.getLogger(__name__)
SECONDS = 5.0


class Standings:
    """What was last heard; while the database is away it stays, and rests and open breakers in it still end by themselves."""

    def __init__(
        self, transactions: Transactions, signals: Signals, clock: Clock,
        heard: Callable[[Mapping[str, Standing]], None] = lambda _: None,
    ) -> None:  # fmt: skip
        """`signals` are this process's own; `heard` is told of all standings each time."""
        self._transactions = transactions
        self._signals = signals
        self._clock = clock
        self._heard = heard
        self._current: Mapping[str, Standing] = {}

    def current(self) -> Mapping[str, Standing]:
        """Standings by provider and by `provider/model`."""
        return self._current

    async def run(self, seconds: float = SECONDS) -> None:
        """Tell and hear every so many seconds, until cancelled."""
        while True:
            try:
                await self.refresh()
            except Exception as why:
                # Its type only: a database's text can hold its address.
                LOG.warning("The standings could not be read (%s); those of before hold.", type(why).__name__)
            await asyncio.sleep(seconds)

    async def refresh(self) -> None:
        """Tell the other workers of this one's calls, and hear of theirs."""
        told, since = self._signals.told(), self._clock() - FRESH_US
        self._current = await self._transactions.call(health.exchange, told, since)
        self._heard(self._current)
