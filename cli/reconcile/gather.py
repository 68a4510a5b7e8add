"""Gather what every account says, in the order that makes the proof exact while traffic runs, and compare."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from cli.reconcile.answers import answer_lines
from cli.reconcile.bodies import body_lines
from cli.reconcile.energy import energy_lines, paid_lines
from cli.reconcile.entries import BodyEntry
from cli.reconcile.ledger import ledger_keys, ledger_lines
from cli.reconcile.limits import limit_lines
from cli.reconcile.provider import provider_account, provider_lines
from cli.reconcile.rollups import rollup_lines
from cli.reconcile.store import fact_lines
from cli.reconcile.topics import Told, read_topics
from cli.reconcile.watermark import Log, Watermark
from config import audit
from config.database import open_database, reading
from config.schema_registry import open_codec
from config.settings import Settings
from core.reconcile import Line
from sinks.query import Store


def _aside(settings: Settings, told: Told) -> list[audit.Held]:
    """What the spare ledger has yet to hand over of the requests that the topics tell of."""
    if settings.spare_database_url is None:
        return []
    engine = open_database(settings.spare_database_url)
    try:
        with reading(engine) as db:
            return list(audit.held(db, ledger_keys(told)))
    finally:
        engine.dispose()


@dataclass(frozen=True, slots=True)
class Proof:
    """Up to where everything was compared, the comparisons, and when Kafka took the requests under way (microseconds)."""

    marks: Watermark
    lines: list[Line]
    under_way_since: list[int]


def now_us() -> int:
    """The time now."""
    return time.time_ns() // 1_000


def reconcile(
    settings: Settings,
    since_us: int | None,
    simulator: str | None,
    progress: Callable[[str], None] = lambda _: None,
    clock: Callable[[], int] = now_us,
) -> Proof:
    """Hold every account against the next one; `clock` tells the time in microseconds since 1970.

    The provider is asked first: a call that it has ended and that is no longer under way at the watermark has its usage event
    below it. The topics come next, then the ledger and ClickHouse, which know of everything that is acknowledged by then.
    Raises `CommandError`, `sinks.query.QueryFailed`, KafkaException or SQLAlchemyError.
    """
    account = provider_account(simulator) if simulator else None
    codec = open_codec(settings)
    store, log, engine = Store(settings), Log(settings), open_database(settings.database_url)
    try:
        now = clock()
        marks = log.watermark(since_us)
        bodies = BodyEntry(settings.bodies, now)
        told = read_topics(log, marks, codec, bodies, progress)
        lines = list(answer_lines(told, marks, now))
        progress("Reading the ledger ...")
        # The spare ledger first: what is carried over meanwhile is in both, and never in neither.
        aside = _aside(settings, told)
        with reading(engine) as db:
            lines += ledger_lines(told, marks, db, clock(), settings.ledger_keep_days, aside)
            lines += limit_lines(told, marks, db, clock(), settings.ledger_keep_days)
            lines += energy_lines(db)
            lines += paid_lines(told, db)
        lines += fact_lines(store, settings, told, marks, progress)
        lines += body_lines(store, settings, bodies, told, marks, progress)
        lines += rollup_lines(store, since_us, progress)
        lines += provider_lines(account, told, marks, since_us)
    finally:
        store.close()
        log.close()
        engine.dispose()
    return Proof(marks, lines, sorted(asked.at_us for asked in told.under_way.values()))
