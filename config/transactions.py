"""Run ledger operations from the event loop, each for many entries in one transaction, on one thread of their own."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import InterfaceError, OperationalError

E = TypeVar("E")
R = TypeVar("R")
Operation = Callable[[Connection, Sequence[E]], Sequence[R]]
_Waiting = tuple[Any, Any, "asyncio.Future[Any]"]

LOG = logging.getLogger(__name__)
LONGEST_PAUSE = 5.0


class Transactions:
    """Group entries of one operation that arrive close together into one transaction: up to `most`, or what `linger` seconds bring.

    While the database is away, entries wait and are tried again; every ledger operation may be repeated safely. One whose
    caller is cancelled before its transaction begins is not run.
    """

    def __init__(
        self, engine: Engine, most: int, linger: float, done: Callable[[int, float], None] = lambda *_: None
    ) -> None:
        """`done` hears of every committed transaction: its entries and the seconds it took, on the ledger's thread."""
        self._engine = engine
        self._done = done
        self._most = most
        self._linger = linger
        self._waiting: list[_Waiting] = []
        self._arrived = asyncio.Event()
        self._full = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._task: asyncio.Task[None] | None = None
        self._heard_at = time.time_ns() // 1_000
        self._asked: float | None = None

    def away_since(self, patience: float) -> int | None:
        """When the database was last heard of, in microseconds since 1970, if it has not answered for `patience` seconds."""
        asked = self._asked
        return None if asked is None or time.monotonic() - asked <= patience else self._heard_at

    async def run(self, operation: Operation[E, R], entry: E) -> R:
        """The operation's result for one entry, once the transaction that holds it is committed."""
        if self._task is None:
            self._task = asyncio.create_task(self._work(), name="ledger")
        done: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((operation, entry, done))
        self._arrived.set()
        if len(self._waiting) >= self._most:
            self._full.set()
        return await done

    async def call(self, function: Callable[..., R], *arguments: Any) -> R:
        """The result of one function of a connection, in a transaction of its own."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._alone, function, arguments)

    async def close(self) -> None:
        """Stop; entries still waiting are given up."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._thread.shutdown()
        self._engine.dispose()

    async def _work(self) -> None:
        while True:
            await self._arrived.wait()
            if len(self._waiting) < self._most and self._linger:
                try:
                    async with asyncio.timeout(self._linger):
                        await self._full.wait()
                except TimeoutError:
                    pass
            batch, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
            if not self._waiting:
                self._arrived.clear()
            if len(self._waiting) < self._most:
                self._full.clear()
            await self._commit(batch)

    async def _commit(self, batch: list[_Waiting]) -> None:
        grouped: dict[Any, list[_Waiting]] = {}
        for waiting in batch:
            grouped.setdefault(waiting[0], []).append(waiting)
        # Each operation locks what it needs in one order; two of them in one transaction would not.
        for operation, members in grouped.items():
            await self._commit_one(operation, members)

    async def _commit_one(self, operation: Operation[Any, Any], members: list[_Waiting]) -> None:
        members = [waiting for waiting in members if not waiting[2].done()]
        if not members:
            return
        try:
            results = await self._until_reached(operation, [entry for _, entry, _ in members])
        except Exception as error:
            # One entry that the database refuses shall not take the others with it.
            if len(members) > 1:
                for waiting in members:
                    await self._commit_one(operation, [waiting])
            elif not members[0][2].done():
                members[0][2].set_exception(error)
            return
        for (_, _, done), result in zip(members, results, strict=True):
            if not done.done():
                done.set_result(result)

    async def _until_reached(self, operation: Operation[E, R], entries: list[E]) -> Sequence[R]:
        pause = 0.05
        try:
            while True:
                # None again where another transaction was taken meanwhile.
                self._asked = self._asked or time.monotonic()
                try:
                    return await asyncio.get_running_loop().run_in_executor(
                        self._thread, self._transact, operation, entries
                    )
                except (OperationalError, InterfaceError) as error:
                    why = type(error.orig).__name__
                    LOG.warning("The ledger's database failed (%s); trying again in %.1f s.", why, pause)
                await asyncio.sleep(pause)
                pause = min(LONGEST_PAUSE, pause * 2)
        finally:
            self._asked = None

    def _transact(self, operation: Operation[E, R], entries: list[E]) -> Sequence[R]:
        began = time.perf_counter()
        with self._engine.begin() as db:
            results = operation(db, entries)
        self._heard()
        self._done(len(entries), time.perf_counter() - began)
        return results

    def _alone(self, function: Callable[..., R], arguments: tuple[Any, ...]) -> R:
        with self._engine.begin() as db:
            result = function(db, *arguments)
        self._heard()
        return result

    def _heard(self) -> None:
        self._heard_at, self._asked = time.time_ns() // 1_000, None
