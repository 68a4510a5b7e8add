"""The simulator's own count of calls, tokens and money."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

import orjson

from local.simulator.calls import NO_TOKENS, Tokens

Outcome = Literal["answered", "error", "garbled", "cut_off"]
OUTCOMES: tuple[Outcome, ...] = ("answered", "error", "garbled", "cut_off")
MOST_RECORDS = 1_000_000


@dataclass(slots=True)
class Totals:
    """The sums over one provider, or over all."""

    outcomes: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(OUTCOMES, 0))
    tokens: list[int] = field(default_factory=lambda: [0] * len(Tokens._fields))
    cost_nano_usd: int = 0
    unpriced_calls: int = 0
    in_flight: int = 0
    max_in_flight: int = 0

    def started(self) -> None:
        """One more call is under way."""
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)

    def ended(self, outcome: Outcome, tokens: Tokens, cost: int | None) -> None:
        """One call less is under way, with this for an end."""
        self.in_flight -= 1
        self.outcomes[outcome] += 1
        self.tokens = [a + b for a, b in zip(self.tokens, tokens, strict=True)]
        self.cost_nano_usd += cost or 0
        self.unpriced_calls += cost is None

    def as_json(self) -> dict[str, Any]:
        """The sums as `GET /_sim/ledger` shows them; calls are those that have ended."""
        return {
            "calls": sum(self.outcomes.values()),
            "outcomes": self.outcomes,
            "tokens": dict(zip(Tokens._fields, self.tokens, strict=True)),
            "cost_nano_usd": self.cost_nano_usd,
            "unpriced_calls": self.unpriced_calls,
            "in_flight": self.in_flight,
            "max_in_flight": self.max_in_flight,
        }


@dataclass(slots=True)
class Call:
    """A call under way; whoever serves it fills in what becomes of it, and until then it counts as cut off."""

    provider: str
    client_request_id: str | None
    received_us: int
    model: str | None = None
    outcome: Outcome = "cut_off"
    status: int | None = None
    tokens: Tokens = NO_TOKENS
    cost_nano_usd: int | None = 0


class Account:
    """Counts calls from `begin` to `end`, and keeps a record of the last million.

    A record is numbered when its call ends, so that whoever reads on from the last number seen misses none.
    """

    def __init__(self, providers: tuple[str, ...]) -> None:
        self._overall = Totals()
        self._by_provider = {provider: Totals() for provider in providers}
        # As JSON: 0.4 kB each, and nothing for the garbage collector to look at.
        self._records: deque[bytes] = deque(maxlen=MOST_RECORDS)
        self._last = 0

    def begin(self, provider: str, client_request_id: str | None) -> Call:
        """Count a call from now on."""
        self._overall.started()
        self._by_provider[provider].started()
        return Call(provider, client_request_id, time.time_ns() // 1_000)

    def end(self, call: Call) -> None:
        """Record what became of the call; an answered one has tokens and a cost, and a stream as far as it was made."""
        tokens, cost = call.tokens, call.cost_nano_usd
        self._overall.ended(call.outcome, tokens, cost)
        self._by_provider[call.provider].ended(call.outcome, tokens, cost)
        self._last += 1
        record = orjson.dumps({
            "seq": self._last,
            "provider": call.provider,
            "model": call.model,
            "client_request_id": call.client_request_id,
            "received_us": call.received_us,
            "finished_us": time.time_ns() // 1_000,
            "outcome": call.outcome,
            "status": call.status,
            "tokens": tokens._asdict(),
            "cost_nano_usd": cost,
        })  # fmt: skip
        # A copy, because the buffer that orjson hands out keeps the 4 kB it was made with.
        self._records.append(bytes(memoryview(record)))

    def totals(self) -> bytes:
        """`{"overall": ..., "providers": {...}, "last_seq": ..., "records": ...}` as JSON."""
        return orjson.dumps({
            "overall": self._overall.as_json(),
            "providers": {name: totals.as_json() for name, totals in self._by_provider.items()},
            "last_seq": self._last,
            "records": len(self._records),
        })  # fmt: skip

    def records(self, since: int) -> bytes:
        """The records after this number as a JSON array, as far as they are still kept."""
        return b"[" + b",".join(self._after(since)) + b"]"

    def _after(self, since: int) -> Iterator[bytes]:
        first = self._last - len(self._records)
        return islice(self._records, max(0, since - first), None)
