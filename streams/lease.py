"""The lease of a worker process: its entry in the ledger, which says until when it lives."""

from __future__ import annotations

import asyncio
import logging
import time

from config import upkeep
from config.transactions import Transactions
from streams.tools import Tools

LOG = logging.getLogger("millstream.worker")


class Lease:
    """This worker's entry in a ledger; also the proof that the ledger answers."""

    def __init__(self, tools: Tools, ledger: Transactions) -> None:
        self._tools = tools
        self._ledger = ledger
        self._seconds = tools.settings.lease_seconds
        self._renewed = time.monotonic()

    async def renew(self) -> None:
        """State that the worker lives."""
        until = self._tools.clock() + int(self._seconds * 1_000_000)
        await self._ledger.call(upkeep.heartbeat, self._tools.owner, until)
        self._renewed = time.monotonic()

    async def keep(self) -> None:
        """Renew it again and again; a failure is tried again, and the lease runs out if it lasts."""
        while True:
            await asyncio.sleep(self._seconds / 4)
            try:
                await self.renew()
            except Exception as error:
                LOG.warning("The lease could not be renewed (%s).", type(error).__name__)

    async def end(self) -> None:
        """State that the worker is gone."""
        await self._ledger.call(upkeep.leave, self._tools.owner)

    def run_out(self) -> bool:
        """Whether the ledger has not answered for as long as a lease lasts."""
        return time.monotonic() - self._renewed > self._seconds
