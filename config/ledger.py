"""The ledger: what is known of every request id, so that nothing is paid twice and no answer is lost.

Each operation takes a connection inside a transaction and a batch of entries, and returns a result per entry, in order. The
answer is stored as done before it is published, so that a crash at any point republishes the same bytes. Times are integers
of microseconds since 1970, money is in nano-USD. `config.settling` charges what calls cost.
"""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson
from sqlalchemy import Connection, Row, bindparam, insert, select, update

from config import answers, counting, energy
from config.asking import packed_asking
from config.holding import MONEY_AND_TOKENS, PLACES, Further, NotAdmitted, Taken, hold_more, verdicts
from config.ledger_rows import THIS_ATTEMPT, attempts_of, charges_of, free, in_turn, month_of, move, requests_of
from config.models import ATTEMPTS, REQUESTS
from config.upkeep import living
from core.attempts import (
    Begin,
    CallState,
    Ending,
    HedgeState,
    OpenAttempt,
    Step,
    attempt_id,
    ending,
    hedge_step,
    next_step,
)
from core.degrading import Degraded
from core.limits import Asking
from schemas.events import AttemptReason, CostStatus, NearLimit


@dataclass(frozen=True, slots=True)
class Admission:
    """A request that wants in: `answer` holds the packed answer when it is refused, None when it shall be called.

    `asking` is what tells which limits it has to fit into. What is held for it is given back at `expires_at`, if nobody works
    on it then. `known` is the path of accounts that limits have to name, empty where they need not.
    """

    request_id: str
    body_hash: bytes
    account: str
    reserve_nano: int
    answer: bytes | None
    now: int
    plan: bytes | None = None
    asking: Asking | None = None
    expires_at: int | None = None
    known: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Admitted:
    """What the ledger says of an admission.

    `new`: it stands now. `same`: the id was known with this body, `answer` being its packed answer if there is one. `other`:
    the id was known with another body, nothing changed. `refused`: it is not known and does not fit into a limit, or no limit
    names its accounts, or it costs more energy than its user has left, or it has to do without some of its candidates, for the
    reason in `refusal`; nothing changed. `admitted_at`, `reserved_nano`, `plan` and `near`, the limits that were nearly used
    up, are those of the first admission.
    """

    kind: Literal["new", "same", "other", "refused"]
    admitted_at: int
    reserved_nano: int
    answer: bytes | None
    plan: bytes | None = None
    refusal: NotAdmitted | Degraded | None = None
    near: Sequence[NearLimit] = ()


@dataclass(frozen=True, slots=True)
class Start:
    """A call that reached its lane, and its request's own rules; see `core.attempts.next_step`."""

    request_id: str
    owner: str
    now: int
    deadline: int | None
    max_attempts: int
    retry_unknown: bool
    candidate: int = 0
    repair: bool = False
    most_attempts: int | None = None
    #: The number of the open call beside which this one is made.
    beside: int | None = None
    #: The number of the request's first call.
    first: int = 1


@dataclass(frozen=True, slots=True)
class EndedAttempt:
    """A provider call that ended: its packed usage event, its cost, the place of the candidate that was called, and why it was."""

    number: int
    usage: bytes
    cost_nano: int | None
    cost_status: CostStatus
    candidate: int = 0
    reason: AttemptReason = "first"


@dataclass(frozen=True, slots=True)
class Started:
    """The next step for a call, the calls ended before it, and the packed answer when it is known.

    `step` is None when the ledger has no admission of the request. `cancelled` says that its caller has given it up.
    """

    step: Step | None
    ended: tuple[EndedAttempt, ...]
    answer: bytes | None
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class End:
    """The end of an open provider call, and with it the request's packed answer when there will be no further call.

    `attempt` None ends a request for which no call is open. `lost` marks a call that a crash cut off; only then may another
    process than the owner end it. `move_to` hands the request over to a later candidate. `cached` ends a request with a cache key,
    in the same transaction, so that nobody who waits for it sees it answered and the cache without its answer.
    """

    request_id: str
    owner: str
    now: int
    attempt: EndedAttempt | None
    answer: bytes | None
    lost: bool = False
    move_to: int | None = None
    cached: answers.Ended | None = None
    #: Whether the answer is a model's and no failure, and how many other calls it counts, ended and open; see `core.attempts.ending`.
    completed: bool = True
    counted: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Calls:
    """The calls of a request as they are now: the ended ones, how many are open, and whether the answer stands."""

    answered: bool
    ended: tuple[EndedAttempt, ...]
    open: int


def admit(db: Connection, entries: Sequence[Admission]) -> list[Admitted]:
    """Admit requests and hold their reservations; a request id counts once, whoever comes first."""
    return in_turn(_admit, db, entries)


def _admit(db: Connection, entries: Sequence[Admission]) -> list[Admitted]:
    known = {row.request_id: row for row in requests_of(db, (e.request_id for e in entries))}
    judged = verdicts(db, [entry for entry in entries if entry.request_id not in known])
    results: list[Admitted] = []
    rows: dict[str, dict[str, Any]] = {}
    held: Counter[tuple[str, str]] = Counter()
    for entry in entries:
        if (earlier := known.get(entry.request_id)) is not None:
            same = hmac.compare_digest(earlier.body_hash, entry.body_hash)
            kind: Literal["same", "other"] = "same" if same else "other"
            near = orjson.loads(earlier.near) if earlier.near else ()
            first = earlier.admitted_at, earlier.reserved_nano, earlier.answer, earlier.plan
            results.append(Admitted(kind, *first, near=near))
            continue
        verdict = judged.get(entry.request_id, Taken())
        if not isinstance(verdict, Taken):
            results.append(Admitted("refused", entry.now, 0, None, refusal=verdict))
            continue
        reserve = entry.reserve_nano if entry.answer is None else 0
        near = counting.near(verdict.charges)
        rows[entry.request_id] = {
            "request_id": entry.request_id, "body_hash": entry.body_hash, "account": entry.account,
            "window": month_of(entry.now), "reserved_nano": reserve, "admitted_at": entry.now,
            "answer": entry.answer, "done_at": entry.now if entry.answer is not None else None, "candidate": 0,
            "plan": entry.plan, "asking": packed_asking(entry.asking) if entry.asking is not None else None,
            "charges": counting.packed(verdict.charges), "energy": verdict.energy,
            "near": orjson.dumps(near) if near else None,
            "expires_at": entry.expires_at if entry.answer is None else None,
        }  # fmt: skip
        held[entry.account, month_of(entry.now)] += reserve
        results.append(Admitted("new", entry.now, reserve, entry.answer, entry.plan, near=near))
    if rows:
        db.execute(_ADMIT, [rows[one] for one in sorted(rows)])
    move(db, {account: (0, amount, 0) for account, amount in held.items() if amount})
    return results


def known(db: Connection, ids: Sequence[str]) -> list[bool]:
    """Whether each of these requests was admitted before; locks nothing."""
    found = set(db.execute(_ANSWERED, {"ids": sorted(set(ids))}).scalars())
    return [one in found for one in ids]


def start(db: Connection, entries: Sequence[Start]) -> list[Started]:
    """Decide each call's next step and, where it is to begin, record the open attempt under its owner."""
    return in_turn(_start, db, entries)


def _start(db: Connection, entries: Sequence[Start]) -> list[Started]:
    requests = {row.request_id: row for row in requests_of(db, (e.request_id for e in entries))}
    attempts = attempts_of(db, requests)
    open_owners = {a.owner for rows in attempts.values() for a in rows if a.ended_at is None}
    alive = living(db, open_owners, max(e.now for e in entries)) if open_owners else set()
    steps: dict[str, Step] = {}
    calls: list[Further] = []
    for entry in entries:
        request, rows = requests.get(entry.request_id), attempts[entry.request_id]
        if request is None:
            continue
        step = steps[entry.request_id] = _step(entry, request, rows, alive - {entry.owner})
        if isinstance(step, Begin):
            calls.append(Further(request, rows, step, entry.candidate, entry.now))
    steps |= zip((call.request_id for call in calls), hold_more(db, calls), strict=True)
    results: list[Started] = []
    begun: list[dict[str, Any]] = []
    for entry in entries:
        request = requests.get(entry.request_id)
        if request is None:
            results.append(Started(None, (), None))
            continue
        step = steps[entry.request_id]
        if isinstance(step, Begin):
            begun.append({
                "request_id": entry.request_id, "number": step.number, "reason": step.reason, "owner": entry.owner,
                "started_at": entry.now, "lost": False, "settled": False, "candidate": entry.candidate,
            })  # fmt: skip
        ended = _ended(attempts[entry.request_id])
        results.append(Started(step, ended, request.answer, request.cancelled_at is not None))
    if begun:
        db.execute(_BEGIN, begun)
    return results


def end(db: Connection, entries: Sequence[End]) -> list[Ending]:
    """Record the ends of calls and the answers of requests; what each came to, as `core.attempts.ending` has it.

    `refused` where the ledger has moved on without this worker (its open call was taken for lost): then nothing changed, the
    caller's result does not count, and `start` says what stands.
    """
    return in_turn(_end, db, entries)


def _end(db: Connection, entries: Sequence[End]) -> list[Ending]:
    requests = {row.request_id: row for row in requests_of(db, (e.request_id for e in entries))}
    attempts = attempts_of(db, requests)
    results: list[Ending] = []
    ended: list[dict[str, Any]] = []
    done: list[dict[str, Any]] = []
    moved: list[dict[str, Any]] = []
    over: list[tuple[Row[Any], int | None, int]] = []
    for entry in entries:
        request, rows = requests.get(entry.request_id), attempts[entry.request_id]
        came_to: Ending = "refused" if request is None else _ending(entry, request, rows)
        results.append(came_to)
        if came_to in ("refused", "changed"):
            continue
        if entry.attempt is not None:
            ended.append({
                "of": entry.request_id, "nr": entry.attempt.number, "ended_at": entry.now, "lost": entry.lost,
                "usage": entry.attempt.usage, "cost_nano": entry.attempt.cost_nano,
                "cost_status": entry.attempt.cost_status,
            })  # fmt: skip
        if came_to == "left":
            # A hedge whose call has failed has the request's turn from now on.
            moved += ({"of": entry.request_id, "candidate": row.candidate} for row in _ahead(entry, request, rows))
            continue
        if entry.answer is not None:
            done.append({"of": entry.request_id, "answer": entry.answer, "done_at": entry.now, "expires_at": None})
            over.append((requests[entry.request_id], _answered_by(entry, rows), entry.now))
        if entry.move_to is not None:
            moved.append({"of": entry.request_id, "candidate": entry.move_to})
    if ended:
        db.execute(_END, ended)
    if moved:
        db.execute(_MOVE_TO, moved)
    recorded = (e for e, came_to in zip(entries, results, strict=True) if came_to == "recorded")
    answers.keep(db, [e.cached for e in recorded if e.cached is not None])
    if done:
        db.execute(_ANSWER, done)
        energy.settle(db, over)
        answered = [requests[d["of"]] for d in done]
        # No settlement follows that would free what is held for these.
        through = [row for row in answered if all(call.settled for call in attempts[row.request_id])]
        counting.release(db, charges_of(answered, PLACES) + charges_of(through, MONEY_AND_TOKENS))
        move(db, {account: (0, -amount, 0) for account, amount in free(db, through).items()})
    return results


def calls_of(db: Connection, ids: Sequence[str]) -> list[Calls]:
    """The calls of each of these requests; locks nothing."""
    rows = db.execute(_ANSWERED, {"ids": sorted(set(ids))})
    answered: dict[str, bool] = {request_id: bool(stands) for request_id, stands in rows}
    attempts = attempts_of(db, ids)
    return [
        Calls(answered.get(one, False), _ended(attempts[one]), sum(row.ended_at is None for row in attempts[one]))
        for one in ids
    ]


def _step(entry: Start, request: Row[Any], rows: list[Row[Any]], alive: set[str]) -> Step:
    state = _state(entry, request, rows, alive)
    # One that is given up goes the way of one whose deadline has passed.
    deadline = entry.deadline if request.cancelled_at is None else 0
    if entry.beside is not None:
        own = next((row for row in rows if row.reason == "hedge" and row.candidate == entry.candidate), None)
        late_open = bool(rows) and rows[-1].number == entry.beside and rows[-1].ended_at is None
        hedge = HedgeState(own is not None, _open(own, alive), late_open)
        step = hedge_step(state, hedge, candidate=entry.candidate, now=entry.now, deadline=deadline)
        if step is not None:
            return step
    return next_step(
        state, now=entry.now, deadline=deadline, max_attempts=entry.max_attempts, retry_unknown=entry.retry_unknown,
        candidate=entry.candidate, repair=entry.repair, most_attempts=entry.most_attempts,
    )  # fmt: skip


def _state(entry: Start, request: Row[Any], rows: list[Row[Any]], alive: set[str]) -> CallState:
    # A hedge is beside the others until its candidate has the turn.
    own = [row for row in rows if row.reason != "hedge" or row.candidate == request.candidate]
    last = own[-1] if own else None
    lost = bool(last is not None and last.ended_at is not None and last.lost)
    here = sum(row.candidate == request.candidate for row in rows)
    return CallState(
        request.answer is not None, len(rows), _open(last, alive), lost, request.candidate, here, entry.first
    )


def _open(row: Row[Any] | None, alive: set[str]) -> OpenAttempt | None:
    if row is None or row.ended_at is not None:
        return None
    return OpenAttempt(
        attempt_id(row.request_id, row.number), row.number, row.reason, row.started_at, row.owner in alive
    )


def _ended(rows: Iterable[Row[Any]]) -> tuple[EndedAttempt, ...]:
    return tuple(
        EndedAttempt(a.number, a.usage, a.cost_nano, a.cost_status, a.candidate, a.reason)
        for a in rows
        if a.ended_at is not None
    )


def _ending(entry: End, request: Row[Any], rows: list[Row[Any]]) -> Ending:
    done, still_open = request.answer is not None, [row for row in rows if row.ended_at is None]
    if entry.attempt is None:
        moves_back = entry.move_to is not None and entry.move_to <= request.candidate
        others_since = entry.counted not in (None, (len(rows), 0))
        return "refused" if done or still_open or moves_back or others_since else "recorded"
    number = entry.attempt.number
    mine = next((row for row in still_open if row.number == number and (entry.lost or row.owner == entry.owner)), None)
    if mine is None:
        return "refused"
    others = len(rows) - len(still_open), len(still_open) - 1
    completed = entry.completed and entry.answer is not None
    came_to = ending(done=done, completed=completed, others=others, counted=entry.counted)
    moves_back = entry.move_to is not None and entry.move_to <= request.candidate
    return "refused" if came_to == "recorded" and moves_back else came_to


def _answered_by(entry: End, rows: list[Row[Any]]) -> int | None:
    """The place of the candidate whose answer ends the request, None where it ends in failure."""
    if entry.attempt is None or not entry.completed:
        return None
    number = entry.attempt.number
    return next(int(row.candidate) for row in rows if row.number == number)


def _ahead(entry: End, request: Row[Any] | None, rows: list[Row[Any]]) -> list[Row[Any]]:
    """The open call of a later candidate than the one whose turn it is, beside the one that ends, of a request without an answer."""
    if request is None or request.answer is not None or entry.attempt is None:
        return []
    others = (row for row in rows if row.ended_at is None and row.number != entry.attempt.number)
    return [row for row in others if row.candidate > request.candidate]


#: Built once: building a statement costs more than running it.
_ADMIT = insert(REQUESTS)
_BEGIN = insert(ATTEMPTS)
_ANSWERED = select(REQUESTS.c.request_id, REQUESTS.c.answer.is_not(None)).where(
    REQUESTS.c.request_id.in_(bindparam("ids", expanding=True))
)
_END = update(ATTEMPTS).where(*THIS_ATTEMPT)
_ANSWER = update(REQUESTS).where(REQUESTS.c.request_id == bindparam("of"))
_MOVE_TO = update(REQUESTS).where(REQUESTS.c.request_id == bindparam("of"))
