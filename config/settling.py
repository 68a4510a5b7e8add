"""Charge accounts in the ledger: what calls cost, once an attempt, and what price adjustments say, once an adjustment.

As in `config.ledger`, an operation takes a connection inside a transaction and a batch, and returns a result per entry.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, bindparam, update

from config import counting, limits
from config.asking import unpacked_asking
from config.dialects import inserts
from config.holding import MONEY_AND_TOKENS
from config.ledger_rows import THIS_ATTEMPT, attempts_of, charges_of, free, month_of, move, requests_of
from config.models import ADJUSTMENTS, ATTEMPTS, REQUESTS


@dataclass(frozen=True, slots=True)
class Settlement:
    """A usage event to settle: the cost when it is known, else the bound that stays counted; the tokens, None when not known.

    `model` is the one that was called, as `provider/model`; `at` is the time of the settlement.
    """

    request_id: str
    number: int
    cost_nano: int | None
    bound_nano: int
    tokens: int | None = None
    model: str = ""
    at: int = 0


@dataclass(frozen=True, slots=True)
class Adjustment:
    """A price adjustment to settle: the signed difference to what is spent, and the bound that counts as unknown no more.

    `admitted_at` is the request's, whose month is charged; the request itself may be forgotten.
    """

    adjustment_id: str
    account: str
    admitted_at: int
    difference_nano: int
    freed_nano: int


def settle(db: Connection, entries: Sequence[Settlement]) -> list[bool | None]:
    """Move what calls cost from reserved to spent, once an attempt; the last one of a request frees its reservation.

    Of a request that goes on, what its calls used takes the place of as much that it holds; a further one has to find room again.
    True: settled now. False: it was settled before. None: the ledger does not know the attempt.
    """
    requests = {row.request_id: row for row in requests_of(db, (e.request_id for e in entries))}
    attempts = {(a.request_id, a.number): a for rows in attempts_of(db, requests).values() for a in rows}
    results: list[bool | None] = []
    settled: dict[tuple[str, int], Settlement] = {}
    for entry in entries:
        key = (entry.request_id, entry.number)
        if key not in attempts:
            results.append(None)
        elif attempts[key].settled or key in settled:
            results.append(False)
        else:
            settled[key] = entry
            results.append(True)
    if not settled:
        return results
    db.execute(_SETTLE, [
        {"of": r, "nr": n, "tokens": entry.tokens, "charged_nano": _charged(entry)} for (r, n), entry in settled.items()
    ])  # fmt: skip
    moves: dict[tuple[str, str], tuple[int, int, int]] = defaultdict(lambda: (0, 0, 0))
    for entry in settled.values():
        request = requests[entry.request_id]
        spent, reserved, unknown = moves[request.account, request.window]
        known = entry.cost_nano is not None
        moves[request.account, request.window] = (
            spent + (entry.cost_nano or 0), reserved, unknown + (0 if known else entry.bound_nano),
        )  # fmt: skip
    still_open = {a.request_id for key, a in attempts.items() if not a.settled and key not in settled}
    going_on = still_open | {request_id for request_id, row in requests.items() if row.answer is None}
    back: list[counting.Charge] = []
    if more := [entry for entry in settled.values() if entry.request_id in going_on]:
        for request, held, less in _hold_less(db, more, requests):
            back += held
            spent, reserved, unknown = moves[request.account, request.window]
            moves[request.account, request.window] = spent, reserved - less, unknown
    over = (requests[request_id] for request_id in {entry.request_id for entry in settled.values()} - going_on)
    through = [row for row in over if row.reserved_nano or row.charges]
    # The place among concurrent requests was given back with the answer.
    back += charges_of(through, MONEY_AND_TOKENS)
    charged = [entry for entry in settled.values() if requests[entry.request_id].charges is not None]
    if charged:
        calls = [_spent(entry, requests[entry.request_id]) for entry in charged]
        counting.settle(db, limits.current(db), calls, back, charged[-1].at)
    for account, freed in free(db, through).items():
        spent, reserved, unknown = moves[account]
        moves[account] = (spent, reserved - freed, unknown)
    move(db, moves)
    return results


def _hold_less(
    db: Connection, entries: Sequence[Settlement], requests: Mapping[str, Row[Any]]
) -> Iterator[tuple[Row[Any], list[counting.Charge], int]]:
    """Keep with requests that go on what they still hold: each with what it gives back of limits, and of reserved money."""
    rows = []
    for request_id in {entry.request_id: None for entry in entries}:
        request = requests[request_id]
        if request.asking is None:
            continue
        calls = [_spent(entry, request) for entry in entries if entry.request_id == request_id]
        nano, tokens = sum(call.nano for call in calls), sum(call.tokens for call in calls)
        left, back = counting.divided(counting.unpacked(request.charges), nano, tokens)
        less = min(request.reserved_nano, nano)
        if less or any(charge.held for charge in back):
            rows.append(
                {"of": request_id, "reserved_nano": request.reserved_nano - less, "charges": counting.packed(left)}
            )
            yield request, back, less
    if rows:
        db.execute(_HOLD_LESS, rows)


def _charged(entry: Settlement) -> int:
    return entry.bound_nano if entry.cost_nano is None else entry.cost_nano


def _spent(entry: Settlement, request: Row[Any]) -> counting.Spent:
    bound = unpacked_asking(request.asking).amounts.tokens
    return counting.Spent(
        counting.unpacked(request.charges),
        entry.model,
        _charged(entry),
        bound if entry.tokens is None else entry.tokens,
    )


def adjust(db: Connection, entries: Sequence[Adjustment]) -> list[bool]:
    """Move spent money by what price adjustments say, once an adjustment; False where it was moved before."""
    first = {entry.adjustment_id: entry for entry in reversed(entries)}
    rows = [
        {"adjustment_id": key, "account": entry.account, "window": month_of(entry.admitted_at),
         "difference_nano": entry.difference_nano}
        for key, entry in sorted(first.items())
    ]  # fmt: skip
    new = set(db.execute(_ADJUST[db.dialect.name].values(rows)).scalars())
    moves: dict[tuple[str, str], tuple[int, int, int]] = defaultdict(lambda: (0, 0, 0))
    for key in new:
        entry = first[key]
        account = entry.account, month_of(entry.admitted_at)
        spent, reserved, unknown = moves[account]
        moves[account] = (spent + entry.difference_nano, reserved, unknown - entry.freed_nano)
    move(db, moves)
    results = []
    for entry in entries:
        results.append(entry.adjustment_id in new)
        new.discard(entry.adjustment_id)
    return results


_HOLD_LESS = update(REQUESTS).where(REQUESTS.c.request_id == bindparam("of"))
_SETTLE = update(ATTEMPTS).where(*THIS_ATTEMPT).values(settled=True)
_ADJUST = {
    name: insert.on_conflict_do_nothing().returning(ADJUSTMENTS.c.adjustment_id)
    for name, insert in inserts(ADJUSTMENTS).items()
}
