"""The ledger as tests of limits write in it and read it."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Engine, select

from config import ledger, limits, settling
from config.limit_models import COUNTERS, LIMIT_ALERTS
from config.models import REQUESTS
from core.accounts import path_of
from core.limits import Amounts, Asking, Limit

NOW = 1_795_258_680_000_000
SECOND, DAY = 1_000_000, 86_400_000_000


class Book:
    """The ledger, one transaction an operation."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def put(
        self, *wanted: Limit, remove: Sequence[Limit] = (), zones: Sequence[tuple[str, str | None]] = (), now: int = NOW
    ) -> int:
        with self.engine.begin() as db:
            return limits.change(db, limits.Edit(wanted, remove, zones), "ana", now).version

    def admit(
        self, nano: int | None = 100, tokens: int = 10, user: str = "ana", now: int = NOW, expires_at: int | None = None
    ) -> tuple[str, ledger.Admitted]:
        one = str(uuid.uuid4())
        asking = Asking(
            path_of("acme", None, user, None), None, ("openai/gpt-5", "google/gemini"), Amounts(nano, tokens)
        )
        entry = ledger.Admission(one, bytes(32), "acme", nano or 0, None, now, b"", asking, expires_at)
        with self.engine.begin() as db:
            return one, ledger.admit(db, [entry])[0]

    def start(self, one: str, now: int = NOW, candidate: int = 0) -> Any:
        """The next step of a call by a candidate, to which the request has moved."""
        with self.engine.begin() as db:
            db.execute(REQUESTS.update().where(REQUESTS.c.request_id == one).values(candidate=candidate))
            return ledger.start(db, [ledger.Start(one, "w", now, None, 5, True, candidate)])[0].step

    def end(self, one: str, number: int | None, cost: int | None, answer: bytes | None = b"answer") -> None:
        status = "unknown" if cost is None else "priced"
        attempt = None if number is None else ledger.EndedAttempt(number, b"usage", cost, status)  # type: ignore[arg-type]
        with self.engine.begin() as db:
            assert ledger.end(db, [ledger.End(one, "w", NOW, attempt, answer)]) == ["recorded"]

    def settle(self, one: str, number: int, cost: int | None, tokens: int | None = 7, bound: int = 100) -> bool | None:
        with self.engine.begin() as db:
            return settling.settle(db, [settling.Settlement(one, number, cost, bound, tokens, "openai/gpt-5", NOW)])[0]

    def counts(self) -> dict[tuple[str, str], tuple[int, int]]:
        """Used and reserved by account and subject, of the latest window."""
        with self.engine.connect() as db:
            rows = db.execute(select(COUNTERS).order_by(COUNTERS.c.begins))
            return {(row.account, row.subject): (row.used, row.reserved) for row in rows}

    def alerts(self) -> list[tuple[str, int]]:
        with self.engine.connect() as db:
            return [(row.account, row.share) for row in db.execute(select(LIMIT_ALERTS).order_by(LIMIT_ALERTS.c.share))]
