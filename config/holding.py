"""What is held for a request, of limits and of energy, in the transaction that admits it or begins a further call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from sqlalchemy import Connection, Row, bindparam, update

from config import counting, energy, energy_prices, limits
from config.asking import unpacked_asking
from config.counting import Charge
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
    """What new requests hold of their limits and of energy, both or nothing, or why they do not; an id counts once."""
    new = {entry.request_id: entry for entry in reversed(entries)}
    judged = [e for e in reversed(new.values()) if e.known or (e.asking is not None and e.answer is None)]
    if not judged:
        return {}
    holding = limits.current(db)
    unknown = {e.request_id: UnknownAccount(who) for e in judged if e.known and (who := holding.unknown(e.known))}
    asked = [
        (e.request_id, e.asking, e.now)
        for e in judged
        if e.request_id not in unknown and e.asking is not None and e.answer is None
    ]
    till = energy.till(db, energy_prices.current(db, holding.version), asked)
    admits = None if till is None else (lambda place: till.take(asked[place][0]))
    found = counting.reserve(db, holding, [(asking, now) for _, asking, now in asked], admits=admits)
    results: dict[str, Taken | NotAdmitted | Degraded] = {**unknown}
    for (one, _, _), verdict in zip(asked, found, strict=True):
        if isinstance(verdict, Refusal | Degraded):
            results[one] = verdict
        elif till is not None and one in till.shorts:
            results[one] = till.shorts[one]
        else:
            results[one] = Taken(verdict, None if till is None else till.held(one))
    if till is not None:
        till.close()
    return results


def hold_more(
    db: Connection, request: Row[Any], rows: Sequence[Row[Any]], step: Begin, candidate: int, now: int
) -> Step:  # fmt: skip
    """Hold what a further call of this candidate can cost beside those whose cost is not settled; the step that follows.

    The first call has what was reserved with the admission, as long as that has not expired; what a settled call used is no
    longer held. `now` is when the further call is to begin.
    """
    charged = [row for row in rows if row.cost_status != "not_charged"]
    if request.asking is None or not (charged or request.expired_at):
        return step
    unsettled = [row for row in charged if not row.settled]
    asking, charges = unpacked_asking(request.asking), counting.unpacked(request.charges)
    bound = asking.amounts
    nano = (bound.nano or 0) + sum(bound.nano or 0 if row.cost_nano is None else row.cost_nano for row in unsettled)
    needed = Amounts(None if bound.nano is None else nano, bound.tokens * (1 + len(unsettled)))
    # One that expired holds nothing for its other candidates either, which are called without asking as long as nothing is charged.
    models = asking.models if request.expired_at else asking.models[candidate : candidate + 1]
    asked = replace(asking, models=models, amounts=needed), request.admitted_at
    meters = (*MONEY_AND_TOKENS, *(PLACES if request.expired_at else ()))
    till, one = energy.till_again(db, request, now), request.request_id
    admits = None if till is None else (lambda _: till.take(one))
    holds = {charge.place: charge.held for charge in charges}
    verdict = counting.reserve(db, limits.current(db), [asked], meters, admits, holds)[0]
    if isinstance(verdict, Refusal):
        return Left() if step.reason == "hedge" else OverLimit(verdict)
    assert not isinstance(verdict, Degraded), "a further call does without no candidate"
    if till is not None and one in till.shorts:
        return OverLimit(till.shorts[one])
    if till is not None:
        till.close()
    taken = Taken(counting.merged(charges, verdict), request.energy if till is None else till.held(one))
    _keep_held(db, request, taken, max(0, nano - request.reserved_nano))
    return step


def _keep_held(db: Connection, request: Row[Any], taken: Taken, more_nano: int) -> None:
    row = {
        "of": request.request_id, "charges": counting.packed(taken.charges), "energy": taken.energy, "expired_at": None,
        "reserved_nano": request.reserved_nano + more_nano,
    }  # fmt: skip
    db.execute(_HOLD, [row])
    move(db, {(request.account, request.window): (0, more_nano, 0)})


_HOLD = update(REQUESTS).where(REQUESTS.c.request_id == bindparam("of"))
