"""What tenants spend by day and the alerts of it, the same on SQLite and on PostgreSQL: once a tenant and day, whoever dies."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine, select, update

from agents.noted_alerts import LEASE_US
from agents.outgoing import Encoder
from agents.spend_alerts import SpendAlerts
from config import limits, settling, spending
from config.limits import Edit
from config.spending import SPEND_DAYS
from config.transactions import Transactions
from core.outcome import Outgoing
from core.spending import Rule
from schemas.codec import Codec
from tests.contract.book import DAY, Book

USD = 1_000_000_000
RULE = Rule(Decimal(3), 10 * USD)
HOUR = DAY // 24
#: A Sunday at noon (UTC).
SUNDAY = int(datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp()) * 1_000_000


class Died(Exception):
    """What a broker raises here in place of the end of the process."""


class Till:
    """A ledger where a tenant spends, looked at when the test says so."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._book = Book(engine)

    def spend(self, usd: int, at: int) -> None:
        """Admit, call and settle a request of this cost."""
        one, _ = self._book.admit(nano=usd * USD, now=at)
        self._book.start(one, at)
        self._book.end(one, 1, usd * USD)
        assert self._book.settle(one, 1, usd * USD) is True

    def look(self, at: int) -> None:
        with self.engine.begin() as db:
            spending.look(db, at, RULE)

    def history(self, *usd: int) -> None:
        """Days like these on the Sundays before, the latest last, each looked at from the evening before on."""
        for weeks, amount in zip(range(len(usd), 0, -1), usd, strict=True):
            noon = SUNDAY - weeks * 7 * DAY
            self.look(noon - DAY)
            self.spend(amount, noon)
            self.look(noon)
        self.look(SUNDAY - DAY)

    def days(self) -> dict[date, tuple[int, bool]]:
        """USD spent on each day, and whether it was seen whole."""
        with self.engine.connect() as db:
            return {row.day: (row.spent_nano // USD, row.whole) for row in db.execute(select(SPEND_DAYS))}

    def raised(self) -> list[date]:
        with self.engine.connect() as db:
            return sorted(row.day for row in db.execute(select(SPEND_DAYS)) if row.raised_at is not None)


class Worker:
    """A publisher with a clock that the test sets, and what it put on the broker."""

    def __init__(self, engine: Engine, owner: str, now: int) -> None:
        self.now = now
        self.sent: list[Outgoing] = []
        self.dies = False
        self.transactions = Transactions(engine, 10, 0)
        encoder = Encoder(Codec(), "meter", lambda: self.now)
        self.alerts = SpendAlerts(self.transactions, encoder, self._publish, lambda: self.now, owner, RULE)

    async def _publish(self, events: tuple[Outgoing, ...]) -> None:
        self.sent += events
        if self.dies:
            raise Died


@pytest.fixture
def till(engine: Engine) -> Till:
    return Till(engine)


def of(*days: int) -> Sequence[date]:
    return [date(2026, 11, day) for day in days]


def test_a_day_beyond_its_weekdays_is_noted_once(till: Till) -> None:
    """Three times the mean is usual, more is not; the rest of the day and the next one say nothing more."""
    till.spend(1, SUNDAY - 29 * DAY)
    till.history(10, 12, 8, 10)
    till.look(SUNDAY)
    till.spend(30, SUNDAY)
    till.look(SUNDAY + HOUR)
    assert till.raised() == []
    till.spend(1, SUNDAY)
    till.look(SUNDAY + 2 * HOUR)
    assert till.raised() == of(22)
    with till.engine.connect() as db:
        [row] = [row for row in db.execute(select(SPEND_DAYS)) if row.raised_at is not None]
        noted = row.raised_at, row.raised_nano, row.known, row.mean_nano, row.greatest_nano
    assert noted == (SUNDAY + 2 * HOUR, 31 * USD, 4, 10 * USD, 12 * USD)
    till.spend(50, SUNDAY)
    till.look(SUNDAY + 3 * HOUR)
    till.look(SUNDAY + DAY)
    with till.engine.connect() as db:
        [row] = [row for row in db.execute(select(SPEND_DAYS)) if row.raised_at is not None]
        assert (row.raised_nano, row.spent_nano) == (31 * USD, 81 * USD)


def test_too_little_history_raises_nothing(till: Till) -> None:
    """One known Sunday is not enough, two are."""
    till.spend(1, SUNDAY - 29 * DAY)
    till.history(10)
    till.spend(1_000, SUNDAY)
    till.look(SUNDAY)
    assert till.raised() == []
    till.look(SUNDAY + 6 * DAY)
    till.spend(3_000, SUNDAY)
    till.look(SUNDAY + 7 * DAY)
    assert till.raised() == of(29)


def test_what_was_spent_while_nobody_looked_is_of_no_day(till: Till) -> None:
    """The first day and one after a gap are not whole: they raise nothing and are nobody's history; a short night counts."""
    till.spend(500, SUNDAY - 2 * DAY)
    till.look(SUNDAY - 2 * DAY)
    till.spend(5, SUNDAY - 2 * DAY)
    till.look(SUNDAY - 2 * DAY + HOUR)
    till.spend(7, SUNDAY - DAY)
    till.look(SUNDAY - DAY)
    till.spend(900, SUNDAY)
    till.look(SUNDAY + DAY)
    found = till.days()
    assert [found.get(day) for day in of(20, 21, 22, 23)] == [(5, False), (7, True), None, (0, False)]
    assert till.raised() == []


def test_a_day_is_that_of_the_tenants_time_zone(till: Till) -> None:
    """In Auckland the Sunday ends while it is Sunday noon in London."""
    with till.engine.begin() as db:
        limits.change(db, Edit(zones=[("acme", "Pacific/Auckland")]), "test", SUNDAY)
    till.spend(1, SUNDAY)
    till.look(SUNDAY - 2 * HOUR)
    till.spend(3, SUNDAY)
    till.look(SUNDAY - HOUR - 1)
    assert till.days() == {date(2026, 11, 22): (3, False)}
    till.spend(4, SUNDAY)
    till.look(SUNDAY - HOUR)
    assert till.days() == {date(2026, 11, 22): (3, False), date(2026, 11, 23): (4, True)}


def test_days_across_months_and_price_adjustments_add_up(till: Till) -> None:
    """What every month of an account comes to is what its days do; an adjustment counts on the day that it is made."""
    first = int(datetime(2026, 11, 30, 12, tzinfo=UTC).timestamp()) * 1_000_000
    till.spend(1, first)
    till.look(first - DAY)
    till.spend(2, first)
    till.look(first)
    till.spend(3, first + DAY)
    till.look(first + DAY)
    with till.engine.begin() as db:
        assert settling.adjust(db, [settling.Adjustment("a1", "acme", first, -2 * USD, 0)]) == [True]
    till.look(first + DAY + HOUR)
    assert till.days() == {
        date(2026, 11, 29): (0, False), date(2026, 11, 30): (2, True), date(2026, 12, 1): (1, True),
    }  # fmt: skip


def test_old_days_are_forgotten_except_one_whose_alert_waits(till: Till) -> None:
    """Thirty days are kept; what no alert was published of is kept however old it is."""
    till.spend(1, SUNDAY)
    for days in range(34):
        till.look(SUNDAY + days * DAY)
        if days == 0:
            with till.engine.begin() as db:
                db.execute(update(SPEND_DAYS).values(raised_at=1, raised_nano=1, known=2, mean_nano=0, greatest_nano=0))
    assert len(till.days()) == 1 + 31
    assert min(till.days()) == date(2026, 11, 22)


def noted(till: Till) -> None:
    """Let a Sunday be unusual that nobody has been told of."""
    till.spend(1, SUNDAY - 29 * DAY)
    till.history(10, 12, 8, 10)
    till.spend(40, SUNDAY)


def test_two_workers_publish_it_once(till: Till) -> None:
    """However often both look, one event is on the broker, also when more is spent afterwards."""
    noted(till)

    async def look() -> list[Outgoing]:
        workers = [Worker(till.engine, owner, SUNDAY) for owner in ("w1", "w2")]
        for _ in range(3):
            await asyncio.gather(*(worker.alerts.look() for worker in workers))
        till.spend(100, SUNDAY)
        for worker in workers:
            worker.now += 2 * LEASE_US
            await worker.alerts.look()
            await worker.transactions.close()
        return [event for worker in workers for event in worker.sent]

    [event] = asyncio.run(look())
    alert: Any = Codec().decode("LlmAlert", event.value)
    assert event.topic == "llm.alerts.v1"
    assert (alert["kind"], alert["subject"], alert["tenant"]) == ("spend_anomaly", "/acme", "acme")
    assert alert["details"]["spent"] == str(40 * USD)


def test_a_crash_between_broker_and_database_repeats_the_same_bytes(till: Till) -> None:
    """What was noted and published and not marked is the next worker's, byte for byte, though more is spent by then; then nobody's."""
    noted(till)

    async def crash() -> tuple[Worker, Worker]:
        first, second = Worker(till.engine, "w1", SUNDAY), Worker(till.engine, "w2", SUNDAY)
        first.dies = True
        with pytest.raises(Died):
            await first.alerts.look()
        assert await second.alerts.look() == 0, "the first one's lease still holds"
        till.spend(5, SUNDAY)
        second.now += LEASE_US
        assert await second.alerts.look() == 1
        assert await second.alerts.look() == 0
        for worker in (first, second):
            await worker.transactions.close()
        return first, second

    first, second = asyncio.run(crash())
    assert len(first.sent) == 1
    assert second.sent == first.sent
