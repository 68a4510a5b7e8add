"""The response cache as admit sees it: an answer that is there, or the one request of several equal ones that gets it."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from typing import cast

from agents.outgoing import Clock
from agents.planning import Plan, call_of
from config import answers
from config.transactions import Transactions
from core.caching import IGNORED, Hit, canonical, hit
from core.trust import Caller, not_for
from schemas.avro import SCHEMAS
from schemas.codec import Codec
from schemas.content import Content
from schemas.events import LlmRequest, LlmResponse

#: Requests that wait at once for an equal one's call; those beyond them call too, so that they hold up nobody.
MOST_WAITING = 256
POLL_SECONDS = 0.1
#: What the answer follows from.
CONTENT = Content(SCHEMAS["LlmRequest"], without=IGNORED)


def key_of(request: LlmRequest, plan: Plan) -> bytes | None:
    """Under what the request's answer is kept.

    None where it is not: its route asks for no cache, or the request is for a stream or wants to go round the cache.
    """
    if plan.cache_seconds is None or request["cache"] == "bypass" or request["stream"]:
        return None
    body = CONTENT.of(canonical(request, plan.cache_shared))
    return hashlib.sha256(b"%s/%s" % (str(plan.fields["route"]).encode(), body)).digest()


class Cache:
    """Looks answers up; see `config.answers`."""

    def __init__(self, codec: Codec, transactions: Transactions, clock: Clock) -> None:
        self._codec = codec
        self._transactions = transactions
        self._clock = clock
        self._waiting = 0

    async def look(self, request: LlmRequest, plan: Plan, caller: Caller | None = None) -> Hit | None:
        """The kept answer for a request, waited for while an equal request's call is under way; None makes it call.

        That of a model which the caller's key is not for is not given to it.
        """
        key = key_of(request, plan)
        if key is None or request["cache"] == "refresh":
            return None
        sought = answers.Sought(key, request["request_id"], self._clock())
        while isinstance(found := await self._transactions.run(answers.seek, sought), answers.UnderWay):
            deadline = request["deadline"]
            if self._waiting >= MOST_WAITING or (deadline is not None and sought.now >= deadline):
                return None
            self._waiting += 1
            try:
                await asyncio.sleep(POLL_SECONDS)
            finally:
                self._waiting -= 1
            sought = replace(sought, now=self._clock())
        if found is None:
            return None
        kept, at = cast(LlmResponse, self._codec.decode_blocking("LlmResponse", found.answer)), self._clock()
        if not_for(caller, f"{kept['provider']}/{kept['model']}") is not None:
            return None
        return hit(call_of(request, plan, at, None, None), kept, found.cost_nano, at)
