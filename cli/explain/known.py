"""What is known of a request, from wherever it is known. Events are rows: fields by the names of ClickHouse's columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

#: An event as a row of its fact table; times are microseconds since 1970, `ingested_at` is None where ClickHouse lacks it.
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Facts:
    """Rows by what they are: the request as often as it was published, its answers, calls, price adjustments and the rest."""

    requests: tuple[Row, ...] = ()
    answers: tuple[Row, ...] = ()
    usages: tuple[Row, ...] = ()
    dead_letters: tuple[Row, ...] = ()
    alerts: tuple[Row, ...] = ()
    bodies: tuple[Row, ...] = ()


@dataclass(frozen=True, slots=True)
class OpenCall:
    """A provider call that has begun and not ended, or was not yet found to be cut off; `alive` says so of its worker."""

    number: int
    reason: str
    model: str
    worker: str
    alive: bool
    started_at: int


@dataclass(frozen=True, slots=True)
class Held:
    """The ledger's word on a request. `plan` has the fields that were chosen for its call, None where it was refused.

    `turn` is the model whose turn it is. `unsettled` are ended calls whose money is not moved yet, `copies` the topics and
    partitions of the answer's copies, `request` the row of the request where the plan holds it.
    """

    account: str
    window: str
    reserved_nano: int
    admitted_at: int
    answered: bool
    turn: str | None
    plan: Mapping[str, Any] | None
    open_calls: tuple[OpenCall, ...]
    unsettled: tuple[int, ...]
    copies: tuple[tuple[str, int | None], ...]
    request: Row | None
    answers: tuple[Row, ...]
    usages: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Known:
    """All of it at the time `now`; `problems` says what could not be asked."""

    request_id: str
    now: int
    answer_id: str
    facts: Facts
    held: Held | None
    problems: tuple[str, ...] = ()
    bodies_wanted: bool = False

    @property
    def anything(self) -> bool:
        """Whether anybody knows the request."""
        facts = self.facts
        return self.held is not None or any((facts.requests, facts.answers, facts.usages, facts.dead_letters))

    @property
    def request(self) -> Row | None:
        """The request as it was first published."""
        if self.facts.requests:
            return self.facts.requests[0]
        return self.held.request if self.held else None

    @property
    def answers(self) -> tuple[Row, ...]:
        """Every answer, stored or only in the ledger; more than one where the id was used again."""
        return _together("ce_id", self.facts.answers, self.held.answers if self.held else ())

    @property
    def answer(self) -> Row | None:
        """The one answer to the request."""
        return next((row for row in self.answers if row["ce_id"] == self.answer_id), None)

    @property
    def calls(self) -> tuple[Row, ...]:
        """The usage events of its calls in the order of their numbers."""
        rows = (row for row in self._usages if not row["adjusts"])
        return tuple(sorted(rows, key=lambda row: row["attempt"]))

    @property
    def adjustments(self) -> tuple[Row, ...]:
        """The price adjustments of its calls."""
        return tuple(row for row in self._usages if row["adjusts"] not in ("", row["attempt_id"]))

    @property
    def cached(self) -> Row | None:
        """The usage event that stands for no call since the response cache had the answer; it adjusts itself."""
        return next((row for row in self._usages if row["adjusts"] == row["attempt_id"]), None)

    @property
    def _usages(self) -> tuple[Row, ...]:
        """Every usage event, stored or only in the ledger."""
        return _together("attempt_id", self.facts.usages, self.held.usages if self.held else ())

    @property
    def decisions(self) -> Iterator[tuple[str, bool, str]]:
        """Each considered model, whether it was kept, and why; the first to be called first."""
        answer, plan = self.answer, self.held.plan if self.held else None
        if answer is not None:
            yield from zip(answer["decisions_model"], answer["decisions_kept"], answer["decisions_reason"], strict=True)
        elif plan is not None:
            yield from ((one["model"], one["kept"], one["reason"]) for one in plan["decisions"])

    @property
    def cost(self) -> int | None:
        """What its calls cost so far in nano-USD, adjustments included; None where the cost of one is not known."""
        moved: dict[str, int] = {}
        for row in self.adjustments:
            moved[row["adjusts"]] = moved.get(row["adjusts"], 0) + (row["cost_nano_usd"] or 0)
        total = 0
        for row in self.calls:
            if row["cost_nano_usd"] is None and row["attempt_id"] not in moved:
                return None
            total += (row["cost_nano_usd"] or 0) + moved.get(row["attempt_id"], 0)
        return total

    @property
    def zero(self) -> int:
        """When the request was made; when it was admitted, where only that is known."""
        rows = [row for row in (self.request, self.answer, *self.calls[:1], *self.answers[:1]) if row is not None]
        if rows:
            return int(rows[0]["created_at"])
        if self.held is not None:
            return self.held.admitted_at
        return min(int(row["timestamp"]) for row in self.facts.dead_letters)


def _together(key: str, stored: tuple[Row, ...], ledger: tuple[Row, ...]) -> tuple[Row, ...]:
    known = {row[key] for row in stored}
    return (*stored, *(row for row in ledger if row[key] not in known))
