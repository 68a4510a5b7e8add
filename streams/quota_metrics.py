"""What a worker tells Prometheus about limits: whom they refused, who waits for them, and the money that accounts with limits have spent and hold."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from functools import cache
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge

from config.holding import NotAdmitted
from config.limit_uses import Money, money
from core.energy import Short
from core.limits import NANO, Refusal

if TYPE_CHECKING:
    from streams.tools import Tools

LOG = logging.getLogger(__name__)
REFRESH_SECONDS = 15.0
#: So many accounts have series of their own, those with the most money; the rest are one.
MOST_ACCOUNTS = 20
#: What requests are refused for, by the code that their caller reads and what was short.
VIOLATIONS = (
    ("policy_budget_exceeded", "usd"), ("policy_unpriced_model", "usd"),
    ("policy_quota_exceeded", "requests"), ("policy_quota_exceeded", "tokens"),
    ("policy_rate_limited", "requests"), ("policy_rate_limited", "tokens"), ("policy_rate_limited", "concurrent"),
    ("policy_energy_exhausted", "energy"), ("policy_unknown_account", "account"),
)  # fmt: skip


class QuotaMetrics:
    """Refusals by limits, who waits for room in one, and money by account."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._violations = cache(Counter(
            "provider_quota_violations_total", "Requests and further calls refused by a limit, by the refusal's code and what was short.",
            ("code", "meter"), registry=registry,
        ).labels)  # fmt: skip
        self._unchecked = Counter(
            "millstream_unchecked_requests_total", "Requests that the spare ledger admitted while the ledger was away.",
            registry=registry,
        )  # fmt: skip
        self._waiting = Gauge(
            "millstream_waiting_requests", "Requests that wait for room in a limit.", registry=registry
        )
        self._spent = Gauge(
            "millstream_account_spent_usd", "What an account has spent of a limit of money in the present window.",
            ("account", "limit"), registry=registry,
        )  # fmt: skip
        self._reserved = Gauge(
            "millstream_account_reserved_usd", "What open requests of an account hold of a limit of money.",
            ("account", "limit"), registry=registry,
        )  # fmt: skip

    def add_admission(self, waiting: Callable[[], float]) -> None:
        """Show what an admission can come to; `waiting` is asked when Prometheus reads the page."""
        self._waiting.set_function(waiting)
        self.add_refusals()

    def add_refusals(self) -> None:
        """Show every kind of refusal, which this process may come to make."""
        for code, meter in VIOLATIONS:
            self._violations(code, meter)

    def violated(self, why: NotAdmitted) -> None:
        """A request was refused, or a further call of one."""
        limit = why.count.limit.meter if isinstance(why, Refusal) else None
        self._violations(why.error["code"], limit or ("energy" if isinstance(why, Short) else "account")).inc()

    def unchecked(self) -> None:
        """A request was admitted by the spare ledger."""
        self._unchecked.inc()

    def show(self, accounts: Iterable[Money]) -> None:
        """The accounts of now in place of those of before."""
        self._spent.clear()
        self._reserved.clear()
        for each in accounts:
            self._spent.labels(each.account, each.subject).set(each.used / NANO)
            self._reserved.labels(each.account, each.subject).set(each.reserved / NANO)


async def keep_accounts(tools: Tools) -> None:
    """Show what accounts have spent and hold, again and again; while the database is away, what was last known."""
    while True:
        try:
            tools.metrics.quota.show(await tools.transactions.call(money, tools.clock(), MOST_ACCOUNTS))
        except Exception as why:
            # Its type only: a database's text can hold its address.
            LOG.warning("What accounts have spent could not be read (%s); trying again.", type(why).__name__)
        await asyncio.sleep(REFRESH_SECONDS)
