"""End the calls whose record never came back after their worker was gone, and publish the usage events that these left owing."""

from __future__ import annotations

from typing import Any, cast

from agents.chunks import Send
from agents.outgoing import Clock, Encoder
from agents.planning import Plan
from config import ledger, upkeep
from config.asking import unpacked_asking
from config.transactions import Transactions
from core.accounts import names_of
from core.facts import Attempt, usage
from core.outcome import Outgoing, pack, unpack
from schemas.cloudevents import trace_of
from schemas.events import LlmCall


class AbandonedCalls:
    """Looks for calls of requests that are overdue and that nobody works on; `send` returns when the broker has the events.

    A call is ended in the ledger first, with its usage event. A worker that dies before it has published that leaves it to the
    next one, which publishes the same bytes under the same id.
    """

    def __init__(self, transactions: Transactions, encoder: Encoder, send: Send, clock: Clock, owner: str) -> None:
        self._transactions = transactions
        self._encoder = encoder
        self._send = send
        self._clock = clock
        self._owner = owner
        #: The calls whose event this process has published and that are not settled yet.
        self._told: set[str] = set()

    async def look(self) -> int:
        """Publish what is owing; how many events there were."""
        calls = {one.attempt_id: one for one in await self._transactions.call(upkeep.abandoned, self._clock())}
        self._told &= set(calls)
        owing = {key: await self._event(one) for key, one in calls.items() if key not in self._told}
        events = tuple(event for packed in owing.values() if packed is not None for event in unpack(packed))
        if events:
            await self._send(events)
            self._told |= {key for key, packed in owing.items() if packed is not None}
        return len(events)

    async def _event(self, one: upkeep.Abandoned) -> bytes | None:
        """The packed usage event of a call, which is ended where it is open; None where it has gone on meanwhile."""
        if one.usage is not None:
            return one.usage
        now = self._clock()
        packed = pack((self._lost(one, now),))
        ended = ledger.EndedAttempt(one.number, packed, None, "unknown")
        end = ledger.End(one.request_id, self._owner, now, ended, None, lost=True)
        return None if await self._transactions.run(ledger.end, end) == "refused" else packed

    def _lost(self, one: upkeep.Abandoned, now: int) -> Outgoing:
        """The accounting fact of a call that was cut off, by what the ledger knows of its request."""
        asking, plan = unpacked_asking(one.asking), Plan.unpacked(one.plan).fields
        names = names_of(asking.path)
        request: dict[str, Any] = dict(
            request_id=one.request_id, tenant=names["tenant"], user=names.get("user"), project=names.get("project"),
            api_key_id=names.get("key"), tags={}, task=asking.task, plan=None, created_at=one.admitted_at,
        )  # fmt: skip
        called = plan["candidates"][one.candidate]
        call = {**plan, **called, "request": request, "admitted_at": one.admitted_at}
        attempt = Attempt(one.attempt_id, one.number, one.reason, one.started_at)
        return self._encoder.usage(usage(cast(LlmCall, call), attempt, None, now, None), trace_of([], one.request_id))
