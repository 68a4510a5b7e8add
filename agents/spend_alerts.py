"""Look at what tenants spend by day, and publish an alert where it is unusual."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from agents.noted_alerts import NotedAlerts
from agents.outgoing import Clock, Encoder
from config import spending
from config.transactions import Transactions
from core.alerts import spend_anomaly
from core.outcome import Outgoing
from core.spending import Anomaly, Rule
from schemas.events import LlmAlert


class SpendAlerts(NotedAlerts[Anomaly]):
    """What is unusual by the rule, once a tenant and day."""

    lease = "spend alerts"
    look_seconds = 15.0

    def __init__(
        self, transactions: Transactions, encoder: Encoder, publish: Callable[[tuple[Outgoing, ...]], Awaitable[None]],
        clock: Clock, owner: str, rule: Rule,
    ) -> None:  # fmt: skip
        super().__init__(transactions, encoder, publish, clock, owner)
        self._rule = rule

    async def _waiting(self, now: int, until: int) -> Sequence[Anomaly]:
        return await self._transactions.call(spending.take_turn, self.lease, self._owner, now, until, self._rule)

    async def _mark(self, noted: Sequence[Anomaly], now: int) -> None:
        await self._transactions.call(spending.published, noted, now)

    def _alert(self, noted: Anomaly) -> LlmAlert:
        return spend_anomaly(noted)
