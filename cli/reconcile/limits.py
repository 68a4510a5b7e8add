"""The counters of limits beside what the ledger's calls and open requests add up to."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Connection

from cli.amounts import moment
from cli.reconcile.topics import Told
from cli.reconcile.watermark import Watermark
from config.limit_audit import Counted, counted
from core.limits import Meter
from core.reconcile import Book, Line, compare
from core.topics import REQUESTS

DAY_US = 86_400_000_000
USED: tuple[tuple[Meter, str], ...] = (("usd", "used_nano_usd"), ("tokens", "tokens"), ("requests", "requests"))
HELD: tuple[tuple[Meter, str], ...] = (("usd", "held_nano_usd"), ("tokens", "tokens"), ("concurrent", "requests"))


def limit_lines(told: Told, marks: Watermark, db: Connection, now: int, keep_days: int) -> Iterator[Line]:
    """The lines of limits, by account and window, all of one moment; `now` is in microseconds."""
    remembered = now - keep_days * DAY_US
    oldest = min((asked.at_us for asked in told.due.values()), default=now)
    # Of a log that still has its first request, and a ledger that is older than that, nothing is forgotten.
    since = 0 if marks.marks[REQUESTS.name].whole and oldest > remembered else remembered
    found = counted(db, now, keep_days)
    whole = [one for one in found if (one.limit.window is None or one.begins >= since) and not one.adjusted]
    notes = [f"{gone:,} counts of windows whose calls the ledger has forgotten or prices were adjusted for"] if (gone := len(found) - len(whole)) else []  # fmt: skip
    counters, calls = _book("counters", USED), _book("settled calls and requests", USED)
    reserved, requests = _book("counters", HELD), _book("open requests", HELD)
    for one in whole:
        _enter(counters, USED, one, one.used)
        _enter(calls, USED, one, one.used_by_calls if one.used is not None else one.used_by_calls or None)
        _enter(reserved, HELD, one, one.reserved)
        _enter(requests, HELD, one, one.held_by_requests if one.reserved is not None else one.held_by_requests or None)
    yield compare("used of limits = settled calls and requests", counters, calls, notes)
    yield compare("held of limits = held for open requests", reserved, requests)


def _book(name: str, figures: tuple[tuple[Meter, str], ...]) -> Book:
    return Book(name, [figure for _, figure in figures])


def _enter(book: Book, figures: tuple[tuple[Meter, str], ...], one: Counted, amount: int | None) -> None:
    if amount is not None:
        amounts = tuple(amount if meter == one.limit.meter else 0 for meter, _ in figures)
        since = f" from {moment(one.begins, seconds=True)}" if one.begins else ""
        book.add((one.account, one.limit.subject, one.begins), amounts, f"{one.account} {one.limit.subject}{since}")
