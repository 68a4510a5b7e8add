"""Which ledger a request is in: the ledger, or the spare one that admits unchecked while the ledger is away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from config import ledger
from config.transactions import Transactions

T = TypeVar("T")
#: How often somebody who waits for a ledger looks whether it is away.
LOOK_SECONDS = 0.25


class _Away(Exception):
    """The ledger is away, and has been since before the request was made."""


class Ledgers:
    """The ledger `main`, and `spare`, None where there is none; one counts as away that has not answered for `patience` seconds.

    A request is in one of them. Once the spare one has admitted it, all its calls and its answer are there, until
    `config.spare` carries it over.
    """

    def __init__(self, main: Transactions, spare: Transactions | None = None, patience: float = 0.0) -> None:
        self.main = main
        self.spare = spare
        self._patience = patience

    @property
    def all(self) -> tuple[Transactions, ...]:
        """Those that there are."""
        return (self.main,) if self.spare is None else (self.main, self.spare)

    def of(self, *, unchecked: bool) -> Transactions:
        """The ledger of a request that was admitted so."""
        return self.spare if unchecked and self.spare is not None else self.main

    async def admit(self, key: str, made_at: int, admit: Callable[[bool], Awaitable[T]]) -> T:
        """What `admit` makes of a request, told whether the spare ledger shall admit it.

        It shall where it knows the request, and where the ledger is away, unless the request was made before that was last
        heard of (`made_at`, microseconds since 1970): then it waits, for it may have been admitted already.
        """
        if self.spare is None:
            return await admit(False)
        with suppress(_Away):
            if await self._unless_away(self.spare, made_at, self.spare.run(ledger.known, key)):
                return await admit(True)
        with suppress(_Away):
            return await self._unless_away(self.main, made_at, admit(False))
        return await admit(True)

    async def _unless_away(self, asked: Transactions, made_at: int, work: Awaitable[T]) -> T:
        """What the work comes to that waits for this ledger; it is cancelled where the ledger is away."""
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                since = asked.away_since(self._patience)
                if since is not None and since < made_at:
                    raise _Away
                await asyncio.wait([task], timeout=LOOK_SECONDS)
            return task.result()
        finally:
            task.cancel()
            await asyncio.wait([task])
