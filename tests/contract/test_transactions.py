"""Grouped transactions: one commit for many, nobody harmed by a neighbour, patience while the database is away."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError

from config.transactions import Transactions


@pytest.fixture
def engine(on_sqlite: Engine) -> Engine:
    """A ledger on SQLite alone."""
    return on_sqlite


def test_entries_that_come_together_share_a_transaction(engine: Engine) -> None:
    """A hundred entries are a few commits, and each caller gets its own result."""
    batches: list[int] = []

    def double(_: Connection, entries: Sequence[int]) -> list[int]:
        batches.append(len(entries))
        return [entry * 2 for entry in entries]

    async def run() -> list[int]:
        transactions = Transactions(engine, most=40, linger=0.05)
        found = await asyncio.gather(*(transactions.run(double, n) for n in range(100)))
        await transactions.close()
        return list(found)

    assert asyncio.run(run()) == [n * 2 for n in range(100)]
    assert batches == [40, 40, 20]


def test_one_bad_entry_fails_alone(engine: Engine) -> None:
    """An entry that the database refuses raises for its caller; the entries beside it are committed."""

    def picky(_: Connection, entries: Sequence[int]) -> list[int]:
        if 3 in entries:
            raise ValueError("three")
        return list(entries)

    async def run() -> list[int | BaseException]:
        transactions = Transactions(engine, most=10, linger=0.01)
        found = await asyncio.gather(*(transactions.run(picky, n) for n in range(6)), return_exceptions=True)
        await transactions.close()
        return list(found)

    found = asyncio.run(run())
    assert isinstance(found[3], ValueError)
    assert [f for n, f in enumerate(found) if n != 3] == [0, 1, 2, 4, 5]


def test_whose_caller_has_gone_is_not_run(engine: Engine) -> None:
    """Also where it goes while the transaction of another operation is under way."""
    ran: list[str] = []
    begun, gone = threading.Event(), threading.Event()

    def slow(_: Connection, entries: Sequence[str]) -> list[str]:
        begun.set()
        gone.wait(30)
        ran.extend(entries)
        return list(entries)

    def quick(_: Connection, entries: Sequence[str]) -> list[str]:
        ran.extend(entries)
        return list(entries)

    async def run() -> None:
        transactions = Transactions(engine, most=10, linger=0.01)
        first = asyncio.create_task(transactions.run(slow, "slow"))
        second = asyncio.create_task(transactions.run(quick, "quick"))
        await asyncio.to_thread(begun.wait, 30)
        second.cancel()
        gone.set()
        assert await first == "slow"
        assert await transactions.run(quick, "later") == "later"
        await transactions.close()

    asyncio.run(run())
    assert ran == ["slow", "later"]


def test_a_database_that_is_away_is_waited_for(engine: Engine) -> None:
    """Nothing is lost and nobody is told an error while the database cannot be reached."""
    tries: list[int] = []

    def away_twice(_: Connection, entries: Sequence[int]) -> list[int]:
        tries.append(len(entries))
        if len(tries) < 3:
            raise OperationalError("SELECT 1", {}, ConnectionError("gone"))
        return list(entries)

    async def run() -> list[int]:
        transactions = Transactions(engine, most=10, linger=0.01)
        found = await asyncio.gather(*(transactions.run(away_twice, n) for n in range(4)))
        await transactions.close()
        return list(found)

    assert asyncio.run(run()) == [0, 1, 2, 3]
    assert tries == [4, 4, 4]
