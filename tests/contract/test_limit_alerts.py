"""Alerts of limits, the same on SQLite and on PostgreSQL: each share once a window, and the same bytes when it is published again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import Engine, select, update

from agents.limit_alerts import LimitAlerts
from agents.noted_alerts import LEASE_US
from agents.outgoing import Encoder
from config import upkeep
from config.limit_models import LIMIT_ALERTS
from config.limit_uses import money
from config.transactions import Transactions
from core.limits import Limit
from core.outcome import Outgoing
from schemas.codec import Codec
from tests.contract.book import DAY, NOW, Book


class Died(Exception):
    """What a broker raises here in place of the end of the process."""


class Worker:
    """A publisher with a clock that the test sets, and what it put on the broker."""

    def __init__(self, engine: Engine, owner: str) -> None:
        self.now = NOW
        self.sent: list[Outgoing] = []
        self.dies = False
        self.transactions = Transactions(engine, 10, 0)
        encoder = Encoder(Codec(), "meter", lambda: self.now)
        self.alerts = LimitAlerts(self.transactions, encoder, self._publish, lambda: self.now, owner)

    async def _publish(self, events: tuple[Outgoing, ...]) -> None:
        self.sent += events
        if self.dies:
            raise Died

    def told(self) -> list[tuple[str, str, str]]:
        """Kind, severity and subject of what was published."""
        found: list[Any] = [Codec().decode("LlmAlert", event.value) for event in self.sent]
        return [(alert["kind"], alert["severity"], alert["subject"]) for alert in found]


@pytest.fixture
def book(engine: Engine) -> Book:
    """A ledger where a tenant has used nine tenths of its requests of a day, and its user all that fits of its money."""
    book = Book(engine)
    book.put(Limit("/acme", "requests", "day", 10), Limit("/acme/user:ana", "usd", "month", 1_000_000_000))
    one, _ = book.admit(nano=850_000_000)
    book.start(one)
    book.end(one, 1, 850_000_000)
    book.settle(one, 1, 850_000_000)
    for _ in range(8):
        assert book.admit(nano=1)[1].kind == "new"
    assert book.admit(nano=200_000_000)[1].kind == "refused"
    return book


def test_each_share_is_published_once(book: Book) -> None:
    """Two workers that look again and again publish every noted share one time, and nothing more until another is reached."""

    async def look() -> tuple[Worker, Worker]:
        workers = Worker(book.engine, "w1"), Worker(book.engine, "w2")
        for _ in range(3):
            await asyncio.gather(*(worker.alerts.look() for worker in workers))
        assert book.admit(nano=1)[1].kind == "new"
        for worker in workers:
            worker.now += 2 * LEASE_US
            await worker.alerts.look()
            await worker.transactions.close()
        return workers

    told = [each for worker in asyncio.run(look()) for each in worker.told()]
    assert sorted(told) == [
        ("limit_near", "warning", "/acme"), ("limit_near", "warning", "/acme"),
        ("limit_near", "warning", "/acme/user:ana"),
        ("limit_reached", "critical", "/acme"), ("limit_reached", "critical", "/acme/user:ana"),
    ]  # fmt: skip


def test_a_crash_between_broker_and_database_repeats_the_same_bytes(book: Book) -> None:
    """What was published and not marked is the next worker's, event for event as before, and then nobody's."""

    async def crash() -> tuple[Worker, Worker]:
        first, second = Worker(book.engine, "w1"), Worker(book.engine, "w2")
        first.dies = True
        with pytest.raises(Died):
            await first.alerts.look()
        assert await second.alerts.look() == 0, "the first one's lease still holds"
        second.now += LEASE_US
        assert await second.alerts.look() == len(first.sent)
        assert await second.alerts.look() == 0
        for worker in (first, second):
            await worker.transactions.close()
        return first, second

    first, second = asyncio.run(crash())
    assert len(first.sent) == 4
    assert second.sent == first.sent
    assert len({event.value for event in first.sent}) == 4


def test_an_alert_says_what_is_used_of_what_and_until_when(book: Book) -> None:
    """The sentence and the figures behind it name the account, the limit, what is used and when it starts afresh."""

    async def look() -> Worker:
        worker = Worker(book.engine, "w1")
        await worker.alerts.look()
        await worker.transactions.close()
        return worker

    sent = asyncio.run(look()).sent
    assert {event.topic for event in sent} == {"llm.alerts.v1"}
    found: list[Any] = [Codec().decode("LlmAlert", event.value) for event in sent]
    assert {alert["tenant"] for alert in found} == {"acme"}
    said = {(alert["subject"], alert["details"]["share"]): alert for alert in found}
    near = said["/acme/user:ana", "80"]
    assert near["message"].startswith(
        "Account /acme/user:ana has used 0.85 USD of its limit of 1 USD per month, at least 80 %; "
        "this stops counting at 2026-12-01T00:00:00Z."
    )
    assert near["details"] == {
        "limit": "1 USD per month", "meter": "usd", "share": "80", "used": "850000000", "most": "1000000000",
        "begins": "2026-11-01T00:00:00Z", "resets_at": "2026-12-01T00:00:00Z",
    }  # fmt: skip
    assert "a request did not fit into the rest" in said["/acme/user:ana", "100"]["message"]
    assert "9 requests of its limit of 10 requests per day, at least 90 %" in said["/acme", "90"]["message"]


def test_concurrent_requests_are_told_of_as_they_are(engine: Engine) -> None:
    """What is under way is not used, and starts afresh at no time."""
    book = Book(engine)
    book.put(Limit("/acme", "concurrent", None, 5))
    for _ in range(4):
        book.admit()

    async def look() -> Worker:
        worker = Worker(book.engine, "w1")
        await worker.alerts.look()
        await worker.transactions.close()
        return worker

    [event] = asyncio.run(look()).sent
    told: Any = Codec().decode("LlmAlert", event.value)
    said = "Account /acme has 4 concurrent requests of its limit of 5 concurrent requests, at least 80 %. See"
    assert told["message"].startswith(said)
    assert "resets_at" not in told["details"]


def test_only_what_was_published_long_ago_is_forgotten(book: Book) -> None:
    """An alert that waits for its broker is kept however old it is."""
    with book.engine.begin() as db:
        db.execute(update(LIMIT_ALERTS).where(LIMIT_ALERTS.c.share == 80).values(published_at=NOW))
        upkeep.purge(db, NOW + 8 * DAY, 8)
        assert len(db.execute(select(LIMIT_ALERTS)).all()) == 4
        upkeep.purge(db, NOW + 8 * DAY + 1, 8)
        assert {row.share for row in db.execute(select(LIMIT_ALERTS))} == {90, 100}


def test_money_by_account_is_bounded_and_adds_up(book: Book) -> None:
    """The accounts with the most money come first, all others are one, and windows that are over do not count."""
    book.put(Limit("/acme/user:*", "usd", "day", 10_000_000_000), remove=[Limit("/acme", "requests", "day", 10)])
    for user, nano in (("bo", 500), ("cy", 300), ("di", 200), ("ed", 100)):
        assert book.admit(nano=nano, user=user)[1].kind == "new"

    def found(now: int, most: int) -> list[tuple[str, str, int, int]]:
        with book.engine.connect() as db:
            return [(each.account, each.subject, each.used, each.reserved) for each in money(db, now, most)]

    ana = [("/acme/user:ana", f"usd per {window}", 850_000_000, 8) for window in ("day", "month")]
    assert found(NOW, 3) == [*ana, ("/acme/user:bo", "usd per day", 0, 500), ("other", "", 0, 600)]
    assert [account for account, *_ in found(NOW, 9)[2:]] == [f"/acme/user:{user}" for user in ("bo", "cy", "di", "ed")]
    assert found(NOW + 2 * DAY, 9) == ana[1:]
