"""The response cache: answers kept to be given again, and calls that several equal requests wait for together.

A request with a cache key asks `seek` before it is admitted. `keep` ends what it was given, with the answer where there is
one. Everything may be repeated; what a crash leaves behind is found out and taken over. Times in microseconds since 1970.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Index,
    LargeBinary,
    String,
    Table,
    bindparam,
    delete,
    select,
    update,
)

from config.dialects import inserts, upserts
from config.models import METADATA, REQUESTS

DAY_US = 86_400_000_000
#: How long whoever took a shared call has to be admitted.
ADMITTED_WITHIN_US = 60_000_000

#: One row an answer: the encoded LlmResponse, and what its request cost.
CACHED_ANSWERS = Table(
    "cached_answers",
    METADATA,
    Column("cache_key", LargeBinary(32), primary_key=True),
    Column("request_id", String(64), nullable=False),
    Column("tenant", String(256), nullable=False),
    Column("answer", LargeBinary, nullable=False),
    Column("cost_nano", BigInteger),
    Column("kept_until", BigInteger, nullable=False),
    Index("cached_answers_kept_until", "kept_until"),
)

#: One row a call that equal requests wait for, and the request that makes it.
SHARED_CALLS = Table(
    "shared_calls",
    METADATA,
    Column("cache_key", LargeBinary(32), primary_key=True),
    Column("request_id", String(64), nullable=False),
    Column("taken_at", BigInteger, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Sought:
    """A request that may be answered from the cache."""

    cache_key: bytes
    request_id: str
    now: int


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer in the cache: whose it was, the encoded LlmResponse, and what it cost."""

    request_id: str
    tenant: str
    answer: bytes
    cost_nano: int | None


@dataclass(frozen=True, slots=True)
class UnderWay:
    """An equal request's call is under way: ask again later."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of a request with a cache key: its answer where that is to be kept, and until when."""

    cache_key: bytes
    request_id: str
    kept: Kept | None
    kept_until: int


def seek(db: Connection, entries: Sequence[Sought]) -> list[Kept | UnderWay | None]:
    """What there is for each request; None for the one that is to make the call."""
    kept = {row.cache_key: row for row in db.execute(_KEPT_OF, {"keys": [e.cache_key for e in entries]})}
    return [_sought(db, entry, kept.get(entry.cache_key)) for entry in entries]


def keep(db: Connection, entries: Sequence[Ended]) -> list[None]:
    """Keep answers, and let nobody wait for these requests any more."""
    for entry in entries:
        if (kept := entry.kept) is not None:
            row = {
                "cache_key": entry.cache_key, "request_id": kept.request_id, "tenant": kept.tenant, "answer": kept.answer,
                "cost_nano": kept.cost_nano, "kept_until": entry.kept_until,
            }  # fmt: skip
            db.execute(_KEEP[db.dialect.name], row)
        db.execute(_LET_GO, {"key": entry.cache_key, "of": entry.request_id})
    return [None] * len(entries)


def forget(db: Connection, now: int) -> int:
    """Drop the answers whose time is over, and calls that nobody can be waiting for any more; how many answers."""
    db.execute(delete(SHARED_CALLS).where(SHARED_CALLS.c.taken_at < now - DAY_US))
    return db.execute(delete(CACHED_ANSWERS).where(CACHED_ANSWERS.c.kept_until <= now)).rowcount


def _sought(db: Connection, entry: Sought, row: Any) -> Kept | UnderWay | None:
    if row is not None and row.kept_until > entry.now:
        return Kept(row.request_id, row.tenant, row.answer, row.cost_nano)
    take = {"cache_key": entry.cache_key, "request_id": entry.request_id, "taken_at": entry.now}
    if db.execute(_TAKE[db.dialect.name], take).first() is not None:
        return None
    held = db.execute(_HELD, {"key": entry.cache_key}).one()
    if held.request_id == entry.request_id:
        return None
    admitted = held.admitted_at is not None
    abandoned = held.answered if admitted else held.taken_at < entry.now - ADMITTED_WITHIN_US
    if not abandoned:
        return UnderWay()
    over = {"key": entry.cache_key, "before": held.request_id, "request_id": entry.request_id, "taken_at": entry.now}
    return None if db.execute(_TAKE_OVER, over).rowcount else UnderWay()


_KEPT_OF = select(CACHED_ANSWERS).where(CACHED_ANSWERS.c.cache_key.in_(bindparam("keys", expanding=True)))
_TAKE = {
    name: insert.on_conflict_do_nothing().returning(SHARED_CALLS.c.request_id)
    for name, insert in inserts(SHARED_CALLS).items()
}
_HELD = (
    select(
        SHARED_CALLS.c.request_id,
        SHARED_CALLS.c.taken_at,
        REQUESTS.c.admitted_at,
        REQUESTS.c.answer.is_not(None).label("answered"),
    )
    .select_from(SHARED_CALLS.outerjoin(REQUESTS, REQUESTS.c.request_id == SHARED_CALLS.c.request_id))
    .where(SHARED_CALLS.c.cache_key == bindparam("key"))
)
_TAKE_OVER = update(SHARED_CALLS).where(
    SHARED_CALLS.c.cache_key == bindparam("key"), SHARED_CALLS.c.request_id == bindparam("before")
)
_LET_GO = delete(SHARED_CALLS).where(
    SHARED_CALLS.c.cache_key == bindparam("key"), SHARED_CALLS.c.request_id == bindparam("of")
)
_KEEP = upserts(CACHED_ANSWERS)
