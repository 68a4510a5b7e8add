"""The windows over which limits count: where the present one begins and ends, in the account's own time zone."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from functools import lru_cache
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo

Window = Literal["minute", "hour", "day", "week", "month"]
US = 1_000_000
#: The length of a sliding window in seconds; a month is 30 days.
LENGTHS: dict[Window, int] = {"minute": 60, "hour": 3_600, "day": 86_400, "week": 604_800, "month": 2_592_000}
#: Cells that a sliding window is counted in. The oldest one counts whole, so that no true window is ever over its limit.
CELLS = 60


class Span(NamedTuple):
    """From `begins` until just before `ends`, in microseconds since 1970."""

    begins: int
    ends: int


def calendar(window: Window, zone: str, now: int) -> Span:
    """The calendar window that a time falls in; weeks begin on Monday, days at midnight of the zone (an IANA name).

    A day on which clocks change has 23 or 25 hours. An hour that the clocks repeat is two.
    """
    begins, ends = _seconds(window, zone, now // (60 * US))
    return Span(begins * US, ends * US)


@lru_cache(maxsize=4_096)
def _seconds(window: Window, zone: str, minute: int) -> tuple[int, int]:
    if window == "minute":
        return minute * 60, minute * 60 + 60
    at = datetime.fromtimestamp(minute * 60, ZoneInfo(zone))
    if window == "hour":
        offset = int((at.utcoffset() or timedelta()).total_seconds())
        begins = (minute * 60 + offset) // 3_600 * 3_600 - offset
        return begins, begins + 3_600
    today = at.date()
    first, following = {
        "day": lambda: (today, today + timedelta(days=1)),
        "week": lambda: (today - timedelta(days=today.weekday()), today + timedelta(days=7 - today.weekday())),
        "month": lambda: (today.replace(day=1), (today.replace(day=28) + timedelta(days=4)).replace(day=1)),
    }[window]()
    return _midnight(first, zone), _midnight(following, zone)


def _midnight(day: date, zone: str) -> int:
    """The first second of a day; where clocks skip midnight, the first that there is (PEP 495: fold 0 reads a skipped time so)."""
    return int(datetime.combine(day, time(), ZoneInfo(zone)).timestamp())


def cell(window: Window, now: int) -> int:
    """Where the cell of a sliding window begins that a time falls in."""
    width = LENGTHS[window] * US // CELLS
    return now // width * width


def oldest_cell(window: Window, now: int) -> int:
    """The first cell that still has a part in the sliding window that ends now."""
    return cell(window, now - LENGTHS[window] * US)
