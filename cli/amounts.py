"""Amounts as people read them: money, counts, times, shares, and lines of small bars."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

NOTHING = "-"
_BARS = " ▁▂▃▄▅▆▇█"
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def money(nano: int | None) -> str:
    """Nano-USD with at least two decimals, and as many as it takes to show two figures: $1,234.50, $0.0012, -$0.30."""
    if nano is None:
        return "unknown"
    sign, amount = ("-" if nano < 0 else ""), abs(nano)
    decimals = 2
    while decimals < 9 and amount and amount < 10 ** (10 - decimals):
        decimals += 1
    unit = 10 ** (9 - decimals)
    rounded = (amount + unit // 2) // unit
    whole, rest = divmod(rounded, 10**decimals)
    return f"{sign}${whole:,}.{rest:0{decimals}d}"


def count(number: float | None) -> str:
    """A whole number, short from a million on: 12,345, 1.2 M, 3.4 G."""
    if number is None:
        return NOTHING
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if abs(number) >= size:
            return f"{number / size:.1f} {letter}"
    return f"{number:,.0f}"


def duration(microseconds: float | None) -> str:
    """A time with two or three figures: 850 µs, 34 ms, 1.25 s, 3 min 20 s, 5 h 10 min, 3 d 4 h."""
    if microseconds is None:
        return NOTHING
    if microseconds < 1_000:
        return f"{microseconds:.0f} µs"
    if microseconds < 999_500:
        return f"{microseconds / 1_000:.0f} ms"
    seconds = microseconds / 1_000_000
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    whole = round(seconds)
    for size, part, names in ((60, 1, "min s"), (3_600, 60, "h min"), (86_400, 3_600, "d h")):
        if whole < size * (60 if size < 3_600 else 24) or size == 86_400:
            big, small = names.split()
            rest = whole % size // part
            return f"{whole // size} {big} {rest} {small}" if rest else f"{whole // size} {big}"
    raise AssertionError(whole)


def share(part: float | None) -> str:
    """A share of 1 in percent: 0 %, 0.4 %, 12 %."""
    if part is None:
        return NOTHING
    percent = part * 100
    return f"{percent:.1f} %" if 0 < percent < 9.95 else f"{percent:.0f} %"


def moment(microseconds: int, *, seconds: bool = False) -> str:
    """A time since 1970 in UTC: 2026-11-21 12:30."""
    return datetime.fromtimestamp(microseconds / 1e6, UTC).strftime(
        "%Y-%m-%d %H:%M:%S" if seconds else "%Y-%m-%d %H:%M"
    )


def plain(text: str) -> str:
    """Text from an event on one line, with a mark for each character that could steer a terminal."""
    return "".join(char if char.isprintable() else "�" for char in text)


def shortened(text: str, width: int) -> str:
    """Text cut to `width` characters, with a sign where something is missing."""
    return text if len(text) <= width else f"{text[: width - 1]}…"


def spark(values: Sequence[float], width: int) -> str:
    """Values as one line of bars; when there are more values than columns, a column shows the sum of its share."""
    return columns(squeezed(values, width), 1)[0]


def squeezed(values: Sequence[float], width: int) -> list[float]:
    """At most `width` values, sums of neighbours."""
    if len(values) <= width:
        return list(values)
    return [
        sum(values[len(values) * at // width : len(values) * (at + 1) // width]) for at in range(width)
    ]  # fmt: skip


def columns(values: Sequence[float], height: int) -> list[str]:
    """Values as columns of `height` lines, the highest line first; the smallest amount above zero still shows."""
    most = max(values, default=0)
    levels = [0 if value <= 0 else max(1, round(8 * height * value / most)) for value in values]
    return [
        "".join(_BARS[min(8, max(0, level - 8 * line))] for level in levels) for line in reversed(range(height))
    ]  # fmt: skip


def bar(value: float, most: float, width: int) -> str:
    """One lying bar of at most `width` columns; an amount above zero shows."""
    if value <= 0 or most <= 0:
        return ""
    eighths = max(1, round(8 * width * value / most))
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()
