"""Run ledger operations from the event loop, many in one transaction, on one thread of their own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

E = TypeVar("E")
R = TypeVar("R")
Operation = Callable[[Connection, Sequence[E]], Sequence[R]]

LOG = logging.getLogger(__name__)
LONGEST_PAUSE = 5.0


class Transactions:
    """Group entries that arrive close together into one transaction: up to `most` of them, or what `linger` seconds bring.

    While the database is away, entries wait and are tried again; every ledger operation may be repeated safely.
    """

    def __init__(self, engine: Engine, most: int, linger: float) -> None:
        self._engine = engine
        self._most = most
        self._linger = linger
        self._waiting: list[tuple[Any, Any, asyncio.Future[Any]]] = []
        self._arrived = asyncio.Event()
        self._full = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._task: asyncio.Task[None] | None = None

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

    async def _commit(self, batch: list[tuple[Any, Any, asyncio.Future[Any]]]) -> None:
        grouped: dict[Any, list[tuple[Any, asyncio.Future[Any]]]] = {}
        for operation, entry, done in batch:
            grouped.setdefault(operation, []).append((entry, done))
        work = [(operation, [entry for entry, _ in members]) for operation, members in grouped.items()]
        pause = 0.05
        while True:
            try:
                results = await asyncio.get_running_loop().run_in_executor(self._thread, self._transact, work)
                break
            except DBAPIError as error:
                LOG.warning("The ledger's database failed (%s); trying again in %.1f s.", _cause(error), pause)
                await asyncio.sleep(pause)
                pause = min(LONGEST_PAUSE, pause * 2)
            except Exception as error:
                for _, _, done in batch:
                    if not done.done():
                        done.set_exception(error)
                return
        for members, values in zip(grouped.values(), results, strict=True):
            for (_, done), value in zip(members, values, strict=True):
                if not done.done():
                    done.set_result(value)

    def _transact(self, work: list[tuple[Any, list[Any]]]) -> list[Sequence[Any]]:
        with self._engine.begin() as db:
            return [operation(db, entries) for operation, entries in work]

    def _alone(self, function: Callable[..., R], arguments: tuple[Any, ...]) -> R:
        with self._engine.begin() as db:
            return function(db, *arguments)


def _cause(error: DBAPIError) -> str:
    # The driver's own text can hold the statement's values; its first line names the fault alone.
    return f"{type(error.orig).__name__}: {str(error.orig).splitlines()[0] if str(error.orig) else ''}"
