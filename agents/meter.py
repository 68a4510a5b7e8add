"""Settle what a provider call cost, once an attempt, and free the reservation of its request; move money by adjustments."""

from __future__ import annotations

from typing import cast

from agents.ledgers import Ledgers
from agents.outgoing import decode
from config import settling
from core.outcome import Drop, Emit, Outcome, Record, Reject
from core.pricing import TOKEN_CLASSES
from schemas.codec import Codec, Undecodable
from schemas.events import LlmUsage


class Meter:
    """The meter stage."""

    def __init__(self, codec: Codec, ledgers: Ledgers) -> None:
        self._codec = codec
        self._ledgers = ledgers

    async def __call__(self, record: Record) -> Outcome:
        """Deal with one record of the usage topic."""
        try:
            usage = await decode(self._codec, "LlmUsage", record.value)
        except Undecodable as why:
            return Reject("caller_undecodable", str(why))
        if usage["reason"] == "cached":
            return Drop(f"request {usage['request_id']} was answered from the response cache")
        if usage["adjusts"] is not None:
            adjustment = settling.Adjustment(
                usage["attempt_id"], usage["tenant"], usage["admitted_at"], usage["cost_nano_usd"] or 0,
                -(usage["reserved_nano_usd"] or 0),
            )  # fmt: skip
            moved = await self._ledgers.main.run(settling.adjust, adjustment)
            return Emit(()) if moved else Drop(f"adjustment {usage['attempt_id']} was settled before")
        settlement = settling.Settlement(
            usage["request_id"], usage["attempt"], usage["cost_nano_usd"], usage["reserved_nano_usd"] or 0,
            _tokens(cast(LlmUsage, usage)), f"{usage['provider']}/{usage['model']}", usage["finished_at"],
        )  # fmt: skip
        settled = await self._ledgers.of(unchecked=usage["unchecked"]).run(settling.settle, settlement)
        if settled is None and usage["unchecked"]:
            # It was settled before, and carried over.
            settled = await self._ledgers.main.run(settling.settle, settlement)
        if settled is None:
            return Reject(
                "pipeline_unknown_attempt",
                f"The ledger does not know attempt {usage['attempt']} of request {usage['request_id']}; "
                "check that every stage uses the same MILLSTREAM_DATABASE_URL and MILLSTREAM_SPARE_DATABASE_URL.",
            )
        return Emit(()) if settled else Drop(f"attempt {usage['attempt_id']} was settled before")


def _tokens(usage: LlmUsage) -> int | None:
    """The tokens of a call; None where its provider reported none, though it may have charged."""
    counts = [count for name in TOKEN_CLASSES if (count := usage["tokens"][name]) is not None]
    return sum(counts) if counts or usage["cost_status"] == "not_charged" else None
