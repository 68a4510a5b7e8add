"""Publish an alert for each share of a limit that an account has reached."""

from __future__ import annotations

from collections.abc import Sequence

from agents.noted_alerts import NotedAlerts
from config import limit_alerts
from core.alerts import limit_share
from core.limits import Reached
from schemas.events import LlmAlert


class LimitAlerts(NotedAlerts[Reached]):
    """The shares that the ledger notes with the requests and settlements that reach them."""

    lease = "limit alerts"
    look_seconds = 1.0

    async def _waiting(self, now: int, until: int) -> Sequence[Reached]:
        return await self._transactions.call(limit_alerts.take_turn, self.lease, self._owner, now, until)

    async def _mark(self, noted: Sequence[Reached], now: int) -> None:
        await self._transactions.call(limit_alerts.published, noted, now)

    def _alert(self, noted: Reached) -> LlmAlert:
        return limit_share(noted)
