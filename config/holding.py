"""What is held for a request, of limits and of energy, in the transaction that admits it or begins a further call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from sqlalchemy import Connection, Row, bindparam, update

from config import counting, energy, energy_prices, limits
from config.asking import unpacked_asking
from config.counting import Ask, Charge
from config.ledger_rows import move
from config.models import REQUESTS
from core.attempts import Begin, Left, OverLimit, Step
from core.degrading import Degraded
from core.energy import Short
from core.limits import Amounts, Asking, Meter, Refusal, UnknownAccount

#: What is given back with the answer, and what waits for its settlement.
PLACES: tuple[Meter, ...] = ("concurrent",)
MONEY_AND_TOKENS: tuple[Meter, ...] = ("usd", "tokens")

#: Why a request is refused: a limit has no room, no limit names its account, its user has too little energy.
NotAdmitted = Refusal | UnknownAccount | Short


class Wanted(Protocol):
    """A request that wants in; see `config.ledger.Admission`."""

    @property
    def request_id(self) -> str:
        """Its id."""

    @property
    def now(self) -> int:
        """When it asks."""

    @property
    def asking(self) -> Asking | None:
        """What it asks for."""

    @property
    def answer(self) -> bytes | None:
        """Its answer, where it needs no call."""

    @property
    def known(self) -> tuple[str, ...]:
        """The accounts that limits have to name."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What a new request holds of its limits, and the packed hold of its user's energy."""

    charges: Sequence[Charge] = ()
    energy: bytes | None = None


def verdicts(db: Connection, entries: Sequence[Wanted]) -> dict[str, Taken | NotAdmitted | Degraded]:
    """What new requests, each of an id of its own, hold of their limits and of energy, both or nothing, or why they do not."""
    judged = [e for e in entries if e.known or (e.asking is not None and e.answer is None)]
    if not judged:
        return {}
    holding = limits.current(db)
    unknown = {e.request_id: UnknownAccount(who) for e in judged if e.known and (who := holding.unknown(e.known))}
    asked = {
        e.request_id: Ask(e.asking, e.now, e.now)
        for e in judged
        if e.request_id not in unknown and e.asking is not None and e.answer is None
    }
    till = energy.till(db, energy_prices.current(db, holding.version), asked)
    found = counting.reserve(db, holding, [*asked.values()], _admits(till, [*asked]))
    results: dict[str, Taken | NotAdmitted | Degraded] = {**unknown}
    for one, verdict in zip(asked, found, strict=True):
        if isinstance(verdict, Refusal | Degraded):
            results[one] = verdict
        elif till is not None and one in till.shorts:
            results[one] = till.shorts[one]
        else:
            results[one] = Taken(verdict, None if till is None else till.held(one))
    if till is not None:
        till.close()
    return results


@dataclass(frozen=True, slots=True)
class Further:
    """A call that a candidate of a request is to begin at a time, after the request's other calls."""

    request: Row[Any]
    calls: Sequence[Row[Any]]
    step: Begin
    candidate: int
    now: int

    @property
    def request_id(self) -> str:
        """Its request's id."""
        return str(self.request.request_id)

    @property
    def charged(self) -> list[Row[Any]]:
        """The other calls that cost something, or may."""
        return [call for call in self.calls if call.cost_status != "not_charged"]

    @property
    def wants_more(self) -> bool:
        """Whether it needs more than was held with the admission, as long as that has not expired."""
        return self.request.asking is not None and bool(self.charged or self.request.expired_at)

    @property
    def expires_at(self) -> int | None:
        """Until when it is held for, if nobody works on it then; where that is over, it begins anew."""
        until: int | None = self.request.expires_at
        if until is None or self.request.expired_at is None:
            return until
        return until + self.now - int(self.request.admitted_at)

    @property
    def ask(self) -> Ask:
        """What its request has to hold: what a settled call used is no longer held, what any other can cost is."""
        unsettled = [call for call in self.charged if not call.settled]
        asking, expired = unpacked_asking(self.request.asking), self.request.expired_at
        bound = asking.amounts
        nano = sum(bound.nano or 0 if call.cost_nano is None else call.cost_nano for call in unsettled)
        needed = Amounts(None if bound.nano is None else bound.nano + nano, bound.tokens * (1 + len(unsettled)))
        # One that expired holds nothing for its other candidates either, which are called without asking as long as nothing is charged.
        models = asking.models if expired else asking.models[self.candidate : self.candidate + 1]
        asked = replace(asking, models=models, amounts=needed)
        holds = {charge.place: charge.held for charge in counting.unpacked(self.request.charges)}
        return Ask(asked, self.request.admitted_at, self.now, (*MONEY_AND_TOKENS, *(PLACES if expired else ())), holds)


def hold_more(db: Connection, calls: Sequence[Further]) -> list[Step]:
    """Hold what further calls can cost, one of a request at most; the step that follows for each."""
    wanting = [call for call in calls if call.wants_more]
    if not wanting:
        return [call.step for call in calls]
    till = energy.till_again(db, [call.request for call in wanting], max(call.now for call in wanting))
    asked = [call.ask for call in wanting]
    found = counting.reserve(db, limits.current(db), asked, _admits(till, [call.request_id for call in wanting]))
    steps: dict[str, Step] = {call.request_id: call.step for call in calls}
    kept: list[dict[str, Any]] = []
    moves: Counter[tuple[str, str]] = Counter()
    for call, ask, verdict in zip(wanting, asked, found, strict=True):
        one, request = call.request_id, call.request
        if isinstance(verdict, Refusal):
            steps[one] = Left() if call.step.reason == "hedge" else OverLimit(verdict)
            continue
        assert not isinstance(verdict, Degraded), "a further call does without no candidate"
        if till is not None and one in till.shorts:
            steps[one] = OverLimit(till.shorts[one])
            continue
        more = max(0, (ask.asking.amounts.nano or 0) - request.reserved_nano)
        kept.append({
            "of": one, "charges": counting.packed(counting.merged(counting.unpacked(request.charges), verdict)),
            "energy": (None if till is None else till.held(one)) or request.energy, "expired_at": None,
            "expires_at": call.expires_at, "reserved_nano": request.reserved_nano + more,
        })  # fmt: skip
        moves[request.account, request.window] += more
    if till is not None:
        till.close()
    if kept:
        db.execute(_HOLD, kept)
    move(db, {account: (0, more, 0) for account, more in moves.items()})
    return [steps[call.request_id] for call in calls]


def _admits(till: energy.Till | None, ids: Sequence[str]) -> Callable[[int], bool] | None:
    """What asks the till about a request by its place among these; None where nothing costs energy."""
    return None if till is None else lambda place: till.take(ids[place])


_HOLD = update(REQUESTS).where(REQUESTS.c.request_id == bindparam("of"))
