"""From when on a report counts, and into how long stretches it cuts the time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from cli.errors import CommandError

_UNITS = {"m": 60, "h": 3_600, "d": 86_400, "w": 7 * 86_400}
#: A step that keeps a plot below this many columns is fine enough.
_MOST_STEPS = 62
_STEPS = (60, 300, 900, 1_800, 3_600, 3 * 3_600, 6 * 3_600, 86_400, 7 * 86_400, 28 * 86_400, 364 * 86_400)
#: The first and last time that the tables can hold.
_BOUNDS = (0, (1 << 32) - 1)


@dataclass(frozen=True, slots=True)
class Window:
    """The time a report covers, in microseconds since 1970, UTC; `step` is the length of a plot's column in seconds."""

    since: int
    until: int
    step: int

    @property
    def buckets(self) -> range:
        """The numbers of the plot's columns: whole steps since 1970."""
        return range(self.since // 1_000_000 // self.step, self.until // 1_000_000 // self.step + 1)


def parse_since(text: str, now: int) -> Window:
    """The window from `text` (`7d`, `24h`, `2026-11-01`, `2026-11-01T12:00`) to `now` in microseconds; `CommandError`."""
    since = _age(text, now) if re.fullmatch(r"\d{1,9}[mhdw]", text) else _moment(text)
    if since >= now:
        raise CommandError(f"--since {text!r} is not in the past; give a time before now.")
    length = (now - since) / 1_000_000
    step = next((step for step in _STEPS if length / step <= _MOST_STEPS), _STEPS[-1])
    return Window(since, now, step)


def _age(text: str, now: int) -> int:
    seconds = int(text[:-1]) * _UNITS[text[-1]]
    if not seconds:
        raise CommandError(f"--since {text!r} is no time at all; give for example 7d.")
    return max(_BOUNDS[0], now - seconds * 1_000_000)


def _moment(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise CommandError(
            f"--since {text!r} is no time; write 90m, 24h, 7d, 4w, or a date such as 2026-11-01."
        ) from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    seconds = moment.timestamp()
    if not _BOUNDS[0] <= seconds <= _BOUNDS[1]:
        raise CommandError(f"--since {text!r} is not between 1970 and 2106, which is what the tables hold.")
    return int(seconds * 1_000_000)
