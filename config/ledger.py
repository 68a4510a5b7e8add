"""The ledger: what is known of every request id, so that nothing is paid twice and no answer is lost.

Each operation takes a connection inside a transaction and a batch of entries, and returns a result per entry, in order. The
answer is stored as done before it is published, so that a crash at any point republishes the same bytes. Times are integers
of microseconds since 1970, money is in nano-USD. `config.settling` charges what calls cost.
"""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Row, bindparam, insert, update

from config import answers
from config.ledger_rows import THIS_ATTEMPT, attempts_of, month_of, move, release, requests_of
from config.models import ATTEMPTS, REQUESTS
from config.upkeep import living
from core.attempts import Begin, CallState, OpenAttempt, Step, attempt_id, next_step
from schemas.events import CostStatus


@dataclass(frozen=True, slots=True)
class Admission:
    """A request that wants in: `answer` holds the packed answer when it is refused, None when it shall be called."""

    request_id: str
    body_hash: bytes
    account: str
    reserve_nano: int
    answer: bytes | None
    now: int
    plan: bytes | None = None


@dataclass(frozen=True, slots=True)
class Admitted:
    """What the ledger says of an admission.

    `new`: it stands now. `same`: the id was known with this body, `answer` being its packed answer if there is one. `other`:
    the id was known with another body, nothing changed. `admitted_at`, `reserved_nano` and `plan` are those of the first
    admission.
    """

    kind: Literal["new", "same", "other"]
    admitted_at: int
    reserved_nano: int
    answer: bytes | None
    plan: bytes | None = None


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


@dataclass(frozen=True, slots=True)
class EndedAttempt:
    """A provider call that ended: its packed usage event, its cost, and the place of the candidate that was called."""

    number: int
    usage: bytes
    cost_nano: int | None
    cost_status: CostStatus
    candidate: int = 0


@dataclass(frozen=True, slots=True)
class Started:
    """The next step for a call, the calls ended before it, and the packed answer when it is known.

    `step` is None when the ledger has no admission of the request.
    """

    step: Step | None
    ended: tuple[EndedAttempt, ...]
    answer: bytes | None


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


def admit(db: Connection, entries: Sequence[Admission]) -> list[Admitted]:
    """Admit requests and hold their reservations; a request id counts once, whoever comes first."""
    known = {row.request_id: row for row in requests_of(db, (e.request_id for e in entries))}
    results: list[Admitted] = []
    rows: dict[str, dict[str, Any]] = {}
    held: Counter[tuple[str, str]] = Counter()
    for entry in entries:
        row = known.get(entry.request_id)
        earlier = rows.get(entry.request_id) if row is None else row._mapping
        if earlier is not None:
            same = hmac.compare_digest(earlier["body_hash"], entry.body_hash)
            kind: Literal["same", "other"] = "same" if same else "other"
            results.append(
                Admitted(kind, earlier["admitted_at"], earlier["reserved_nano"], earlier["answer"], earlier["plan"])
            )
            continue
        reserve = entry.reserve_nano if entry.answer is None else 0
        rows[entry.request_id] = {
            "request_id": entry.request_id, "body_hash": entry.body_hash, "account": entry.account,
            "window": month_of(entry.now), "reserved_nano": reserve, "admitted_at": entry.now,
            "answer": entry.answer, "done_at": entry.now if entry.answer is not None else None, "candidate": 0,
            "plan": entry.plan,
        }  # fmt: skip
        held[entry.account, month_of(entry.now)] += reserve
        results.append(Admitted("new", entry.now, reserve, entry.answer, entry.plan))
    if rows:
        db.execute(_ADMIT, list(rows.values()))
    move(db, {account: (0, amount, 0) for account, amount in held.items() if amount})
    return results


def start(db: Connection, entries: Sequence[Start]) -> list[Started]:
    """Decide each call's next step and, where it is to begin, record the open attempt under its owner."""
    requests = {row.request_id: row for row in requests_of(db, (e.request_id for e in entries))}
    attempts = attempts_of(db, requests)
    open_owners = {a.owner for rows in attempts.values() for a in rows if a.ended_at is None}
    alive = living(db, open_owners, max(e.now for e in entries)) if open_owners else set()
    results: list[Started] = []
    begun: list[dict[str, Any]] = []
    for entry in entries:
        request = requests.get(entry.request_id)
        if request is None:
            results.append(Started(None, (), None))
            continue
        rows = attempts[entry.request_id]
        step = next_step(
            _state(request, rows, alive - {entry.owner}), now=entry.now, deadline=entry.deadline,
            max_attempts=entry.max_attempts, retry_unknown=entry.retry_unknown, candidate=entry.candidate,
            repair=entry.repair, most_attempts=entry.most_attempts,
        )  # fmt: skip
        if isinstance(step, Begin):
            begun.append({
                "request_id": entry.request_id, "number": step.number, "reason": step.reason, "owner": entry.owner,
                "started_at": entry.now, "lost": False, "settled": False, "candidate": entry.candidate,
            })  # fmt: skip
        ended = tuple(
            EndedAttempt(a.number, a.usage, a.cost_nano, a.cost_status, a.candidate)
            for a in rows
            if a.ended_at is not None
        )
        results.append(Started(step, ended, request.answer))
    if begun:
        db.execute(_BEGIN, begun)
    return results


def end(db: Connection, entries: Sequence[End]) -> list[bool]:
    """Record the ends of calls and the answers of requests.

    False where the ledger has moved on without this worker (its open call was taken for lost, or the request is done): then
    nothing changed, the caller's result does not count, and `start` says what stands.
    """
    requests = {row.request_id: row for row in requests_of(db, (e.request_id for e in entries))}
    attempts = attempts_of(db, requests)
    results: list[bool] = []
    ended: list[dict[str, Any]] = []
    done: list[dict[str, Any]] = []
    moved: list[dict[str, Any]] = []
    for entry in entries:
        request, rows = requests.get(entry.request_id), attempts[entry.request_id]
        valid = request is not None and request.answer is None and _may_end(entry, request, rows)
        results.append(valid)
        if not valid:
            continue
        if entry.attempt is not None:
            ended.append({
                "of": entry.request_id, "nr": entry.attempt.number, "ended_at": entry.now, "lost": entry.lost,
                "usage": entry.attempt.usage, "cost_nano": entry.attempt.cost_nano,
                "cost_status": entry.attempt.cost_status,
            })  # fmt: skip
        if entry.answer is not None:
            done.append({"of": entry.request_id, "answer": entry.answer, "done_at": entry.now})
        if entry.move_to is not None:
            moved.append({"of": entry.request_id, "candidate": entry.move_to})
    if ended:
        db.execute(_END, ended)
    if moved:
        db.execute(_MOVE_TO, moved)
    answers.keep(db, [e.cached for e, valid in zip(entries, results, strict=True) if valid and e.cached is not None])
    if done:
        db.execute(_ANSWER, done)
        # No settlement follows that would free what is held for these.
        nothing_to_settle = [d["of"] for d in done if all(a.settled for a in attempts[d["of"]])]
        if nothing_to_settle:
            freed = release(db, requests_of(db, nothing_to_settle))
            move(db, {account: (0, -amount, 0) for account, amount in freed.items()})
    return results


def _state(request: Row[Any], rows: list[Row[Any]], alive: set[str]) -> CallState:
    last = rows[-1] if rows else None
    open_attempt = None
    if last is not None and last.ended_at is None:
        open_attempt = OpenAttempt(
            attempt_id(request.request_id, last.number), last.number, last.reason, last.started_at, last.owner in alive
        )
    lost = bool(last is not None and last.ended_at is not None and last.lost)
    here = sum(row.candidate == request.candidate for row in rows)
    return CallState(request.answer is not None, len(rows), open_attempt, lost, request.candidate, here)


def _may_end(entry: End, request: Row[Any], rows: list[Row[Any]]) -> bool:
    if entry.move_to is not None and entry.move_to <= request.candidate:
        return False
    last = rows[-1] if rows else None
    is_open = last is not None and last.ended_at is None
    if entry.attempt is None:
        return not is_open
    mine = last is not None and (entry.lost or last.owner == entry.owner)
    return is_open and mine and last is not None and last.number == entry.attempt.number


#: Built once: building a statement costs more than running it.
_ADMIT = insert(REQUESTS)
_BEGIN = insert(ATTEMPTS)
_END = update(ATTEMPTS).where(*THIS_ATTEMPT)
_ANSWER = update(REQUESTS).where(REQUESTS.c.request_id == bindparam("of"))
_MOVE_TO = update(REQUESTS).where(REQUESTS.c.request_id == bindparam("of"))
