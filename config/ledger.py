"""The ledger: what is known of every request id, so that nothing is paid twice and no answer is lost.

Each operation takes a connection inside a transaction and a batch of entries, and returns a result per entry, in order. The
answer is stored as done before it is published, so that a crash at any point republishes the same bytes. Times are integers
of microseconds since 1970, money is in nano-USD.
"""

from __future__ import annotations

import hmac
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import Connection, Row, Table, bindparam, delete, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from config import answers
from config.models import ACCOUNTS, ADJUSTMENTS, ATTEMPTS, REQUESTS, WORKERS
from core.attempts import Begin, CallState, OpenAttempt, Step, attempt_id, next_step
from schemas.events import CostStatus

DAY_US = 86_400_000_000


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


@dataclass(frozen=True, slots=True)
class Settlement:
    """A usage event to settle: the cost when it is known, else the bound that stays counted."""

    request_id: str
    number: int
    cost_nano: int | None
    bound_nano: int


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


def month_of(now: int) -> str:
    """The calendar month (UTC) of a time, such as 2026-11."""
    return datetime.fromtimestamp(now // 1_000_000, UTC).strftime("%Y-%m")


def admit(db: Connection, entries: Sequence[Admission]) -> list[Admitted]:
    """Admit requests and hold their reservations; a request id counts once, whoever comes first."""
    known = {row.request_id: row for row in _requests(db, (e.request_id for e in entries))}
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
    _move(db, {account: (0, amount, 0) for account, amount in held.items() if amount})
    return results


def start(db: Connection, entries: Sequence[Start]) -> list[Started]:
    """Decide each call's next step and, where it is to begin, record the open attempt under its owner."""
    requests = {row.request_id: row for row in _requests(db, (e.request_id for e in entries))}
    attempts = _attempts(db, requests)
    open_owners = {a.owner for rows in attempts.values() for a in rows if a.ended_at is None}
    alive = _alive(db, open_owners, max(e.now for e in entries)) if open_owners else set()
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
    requests = {row.request_id: row for row in _requests(db, (e.request_id for e in entries))}
    attempts = _attempts(db, requests)
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
            freed = _release(db, _requests(db, nothing_to_settle))
            _move(db, {account: (0, -amount, 0) for account, amount in freed.items()})
    return results


def settle(db: Connection, entries: Sequence[Settlement]) -> list[bool | None]:
    """Move what calls cost from reserved to spent, once an attempt; the last one of a request frees its reservation.

    True: settled now. False: it was settled before. None: the ledger does not know the attempt.
    """
    requests = {row.request_id: row for row in _requests(db, (e.request_id for e in entries))}
    attempts = {(a.request_id, a.number): a for rows in _attempts(db, requests).values() for a in rows}
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
    db.execute(_SETTLE, [{"of": r, "nr": n} for r, n in settled])
    moves: dict[tuple[str, str], tuple[int, int, int]] = defaultdict(lambda: (0, 0, 0))
    for entry in settled.values():
        request = requests[entry.request_id]
        spent, reserved, unknown = moves[request.account, request.window]
        known = entry.cost_nano is not None
        moves[request.account, request.window] = (
            spent + (entry.cost_nano or 0), reserved, unknown + (0 if known else entry.bound_nano),
        )  # fmt: skip
    still_open = {a.request_id for key, a in attempts.items() if not a.settled and key not in settled}
    through = {entry.request_id for entry in settled.values()} - still_open
    for account, freed in _release(db, [requests[request_id] for request_id in through]).items():
        spent, reserved, unknown = moves[account]
        moves[account] = (spent, reserved - freed, unknown)
    _move(db, moves)
    return results


def adjust(db: Connection, entries: Sequence[Adjustment]) -> list[bool]:
    """Move spent money by what price adjustments say, once an adjustment; False where it was moved before."""
    first = {entry.adjustment_id: entry for entry in reversed(entries)}
    rows = [
        {"adjustment_id": key, "account": entry.account, "window": month_of(entry.admitted_at),
         "difference_nano": entry.difference_nano}
        for key, entry in sorted(first.items())
    ]  # fmt: skip
    dialect: Any = postgresql if db.dialect.name == "postgresql" else sqlite
    add = dialect.insert(ADJUSTMENTS).values(rows).on_conflict_do_nothing().returning(ADJUSTMENTS.c.adjustment_id)
    new = set(db.execute(add).scalars())
    moves: dict[tuple[str, str], tuple[int, int, int]] = defaultdict(lambda: (0, 0, 0))
    for key in new:
        entry = first[key]
        account = entry.account, month_of(entry.admitted_at)
        spent, reserved, unknown = moves[account]
        moves[account] = (spent + entry.difference_nano, reserved, unknown - entry.freed_nano)
    _move(db, moves)
    results = []
    for entry in entries:
        results.append(entry.adjustment_id in new)
        new.discard(entry.adjustment_id)
    return results


def heartbeat(db: Connection, owner: str, alive_until: int) -> None:
    """State that a worker lives at least until then."""
    db.execute(_UPSERTS[db.dialect.name, WORKERS.name], {"owner": owner, "alive_until": alive_until})


def leave(db: Connection, owner: str) -> None:
    """State that a worker is gone: whatever it left open may be taken over at once."""
    db.execute(delete(WORKERS).where(WORKERS.c.owner == owner))


def purge(db: Connection, now: int, keep_days: int) -> int:
    """Forget requests answered more than `keep_days` ago with nothing left to settle; how many rows went."""
    old = select(REQUESTS.c.request_id).where(
        REQUESTS.c.done_at < now - keep_days * DAY_US, REQUESTS.c.reserved_nano == 0
    )
    db.execute(delete(ATTEMPTS).where(ATTEMPTS.c.request_id.in_(old)))
    gone = db.execute(delete(REQUESTS).where(REQUESTS.c.request_id.in_(old))).rowcount
    db.execute(delete(WORKERS).where(WORKERS.c.alive_until < now - DAY_US))
    return gone


def _requests(db: Connection, ids: Iterable[str]) -> Sequence[Row[Any]]:
    """The rows of these requests, locked in one order, so that two transactions cannot wait for each other."""
    return db.execute(_REQUESTS_OF, {"ids": sorted(set(ids))}).all()


def _attempts(db: Connection, ids: Iterable[str]) -> dict[str, list[Row[Any]]]:
    found: dict[str, list[Row[Any]]] = defaultdict(list)
    for row in db.execute(_ATTEMPTS_OF, {"ids": list(ids)}):
        found[row.request_id].append(row)
    return found


def _alive(db: Connection, owners: set[str], now: int) -> set[str]:
    query = select(WORKERS.c.owner).where(WORKERS.c.owner.in_(list(owners)), WORKERS.c.alive_until > now)
    return set(db.execute(query).scalars())


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


def _release(db: Connection, requests: Iterable[Row[Any]]) -> Counter[tuple[str, str]]:
    """Free what is still reserved for these requests as far as they are answered; how much by account."""
    freed: Counter[tuple[str, str]] = Counter()
    rows = [row for row in requests if row.answer is not None and row.reserved_nano]
    if rows:
        db.execute(_FREE, {"ids": [row.request_id for row in rows]})
    for row in rows:
        freed[row.account, row.window] += row.reserved_nano
    return freed


def _move(db: Connection, moves: dict[tuple[str, str], tuple[int, int, int]]) -> None:
    """Add (spent, reserved, unknown) to accounts, in one order, so that two transactions cannot wait for each other."""
    rows = [
        {"account": account, "window": window, "spent_nano": s, "reserved_nano": r, "unknown_nano": u}
        for (account, window), (s, r, u) in sorted(moves.items())
    ]
    if rows:
        db.execute(_UPSERTS[db.dialect.name, ACCOUNTS.name], rows)


def _upsert(dialect: Any, table: Table, changes: Callable[[Any], dict[str, Any]]) -> Any:
    statement = dialect.insert(table)
    return statement.on_conflict_do_update(
        index_elements=list(table.primary_key.columns), set_=changes(statement.excluded)
    )


#: Built once: building a statement costs more than running it.
_REQUESTS_OF = (
    select(REQUESTS)
    .where(REQUESTS.c.request_id.in_(bindparam("ids", expanding=True)))
    .order_by(REQUESTS.c.request_id)
    .with_for_update()
)
_ATTEMPTS_OF = (
    select(ATTEMPTS).where(ATTEMPTS.c.request_id.in_(bindparam("ids", expanding=True))).order_by(ATTEMPTS.c.number)
)
_ADMIT = insert(REQUESTS)
_BEGIN = insert(ATTEMPTS)
_THIS_ATTEMPT = (ATTEMPTS.c.request_id == bindparam("of"), ATTEMPTS.c.number == bindparam("nr"))
_END = update(ATTEMPTS).where(*_THIS_ATTEMPT)
_SETTLE = update(ATTEMPTS).where(*_THIS_ATTEMPT).values(settled=True)
_ANSWER = update(REQUESTS).where(REQUESTS.c.request_id == bindparam("of"))
_MOVE_TO = update(REQUESTS).where(REQUESTS.c.request_id == bindparam("of"))
_FREE = update(REQUESTS).where(REQUESTS.c.request_id.in_(bindparam("ids", expanding=True))).values(reserved_nano=0)
_AMOUNTS = ("spent_nano", "reserved_nano", "unknown_nano")
_UPSERTS = {
    (name, table.name): _upsert(dialect, table, changes)
    for name, dialect in (("postgresql", postgresql), ("sqlite", sqlite))
    for table, changes in (
        (ACCOUNTS, lambda new: {amount: ACCOUNTS.c[amount] + new[amount] for amount in _AMOUNTS}),
        (WORKERS, lambda new: {"alive_until": new.alive_until}),
    )
}
