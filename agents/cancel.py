"""Requests that their callers have given up: work on them is broken off, and none is begun. And calls that nobody needs any more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from agents.ledgers import Ledgers
from config.cancelling import cancel
from config.transactions import Transactions
from core.admission import UUID
from core.errors import ProviderError, error
from core.reply import Reply
from schemas.events import Error

T = TypeVar("T")
#: A request that is cancelled while it waits in a lane is known by then, so many cancellations back.
REMEMBERED = 10_000
PAUSE_SECONDS = 5.0
LOG = logging.getLogger(__name__)


class Cancelled(Exception):
    """The work was broken off, and why; `begun` where it may have done something."""

    def __init__(self, begun: bool, why: Error | None = None) -> None:
        self.why = why or cancelled_error()
        super().__init__(self.why["message"])
        self.begun = begun

    def failure(self, used: Reply | None = None) -> ProviderError:
        """The end of a provider call that was broken off, with what the provider had told of its usage."""
        return ProviderError(self.why, "maybe" if self.begun else "no", used if self.begun else None)


def cancelled_error() -> Error:
    """What the caller of a cancelled request is told."""
    return error("caller_cancelled", "The request was cancelled; what its calls used until then is accounted.")


class Cancellation:
    """Whether one request that is at work here has been given up."""

    def __init__(self, requested: bool) -> None:
        self.requested = requested
        self._limit: asyncio.Timeout | None = None
        self._why: Error | None = None

    def request(self) -> None:
        """Break off what is under way."""
        self.requested = True
        self._end(None)

    def break_off(self, why: Error) -> bool:
        """Break off what is under way, and only that: the request itself is not given up. Whether anything was."""
        return self._end(why)

    def _end(self, why: Error | None) -> bool:
        if self._limit is None:
            return False
        # Only once: what ends already may still be closing its connection.
        if self._limit.when() is None:
            self._why = why
            self._limit.reschedule(asyncio.get_running_loop().time())
        return True

    async def unless(self, work: Coroutine[Any, Any, T]) -> T:
        """What the work returns; `Cancelled` where the request is given up before it ends. One at a time."""
        if self.requested:
            work.close()
            raise Cancelled(begun=False)
        limit = asyncio.timeout(None)
        try:
            async with limit:
                self._limit = limit
                try:
                    return await work
                finally:
                    self._limit = None
        except TimeoutError:
            if not limit.expired():
                raise
        why, self._why = self._why, None
        raise Cancelled(begun=True, why=why)


class Cancellations:
    """The cancellations that this process has heard of, and the requests at work in it."""

    def __init__(self) -> None:
        self._asked: dict[str, str | None] = {}
        self._at_work: dict[str, tuple[str, list[Cancellation]]] = {}

    def cancel(self, request_id: str, tenant: str | None) -> None:
        """Give a request up, now or when it comes; one of another tenant is left alone."""
        self._asked.pop(request_id, None)
        self._asked[request_id] = tenant
        if len(self._asked) > REMEMBERED:
            del self._asked[next(iter(self._asked))]
        owner, at_work = self._at_work.get(request_id, (None, []))
        if tenant in (None, owner):
            for each in at_work:
                each.request()

    @contextmanager
    def watch(self, request_id: str, tenant: str) -> Iterator[Cancellation]:
        """Stand for a request of this tenant while it is at work."""
        asked = request_id in self._asked and self._asked[request_id] in (None, tenant)
        cancellation = Cancellation(asked)
        _, at_work = self._at_work.setdefault(request_id, (tenant, []))
        at_work.append(cancellation)
        try:
            yield cancellation
        finally:
            at_work.remove(cancellation)
            if not at_work:
                del self._at_work[request_id]


async def keep_cancelled(ledgers: Ledgers, request_id: str, tenant: str | None, now: int) -> None:
    """Let the ledgers know that a request is given up, for whoever works on it after a crash; waits while one is away."""
    if UUID.fullmatch(request_id) and "\x00" not in (tenant or ""):
        await asyncio.gather(*(_kept(one, request_id, tenant, now) for one in ledgers.all))


async def _kept(ledger: Transactions, request_id: str, tenant: str | None, now: int) -> None:
    while True:
        try:
            return await ledger.call(cancel, request_id, tenant, now)
        except Exception as why:
            # Its type only: a database's text can hold its address.
            LOG.warning("That a request is cancelled could not be kept (%s); trying again.", type(why).__name__)
            await asyncio.sleep(PAUSE_SECONDS)
