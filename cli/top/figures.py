"""What one look at a running pipeline finds, as plain values; None is what could not be found out."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(slots=True)
class Lane:
    """A consumer group: records it has not acknowledged (`lag`), what its workers hold, and its last minute.

    `per_second`, `p95_us` and `errors` are of the last minute; `oldest_seconds` is the age of the oldest record that a worker
    has taken and not acknowledged.
    """

    name: str
    lag: int | None = None
    in_flight: int | None = None
    slots: int | None = None
    oldest_seconds: float | None = None
    per_second: float | None = None
    p95_us: int | None = None
    errors: int | None = None


@dataclass(slots=True)
class Minute:
    """All calls that ended within the last minute; `spend` in nano-USD, without the `unpriced` and `unknown` calls."""

    calls: int
    errors: int
    spend: int
    unpriced: int
    unknown: int
    p95_us: int | None


@dataclass(slots=True)
class Freshness:
    """How new the stored rows are: the age of the newest call's end, and how long rows of the last minute took to get in."""

    newest_seconds: float | None
    stored_after_p95_seconds: float | None


@dataclass(slots=True)
class Look:
    """One look, at `at_us`; `problems` are sentences about what did not answer."""

    at_us: int
    lanes: list[Lane]
    minute: Minute | None = None
    freshness: Freshness | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def sink(self) -> Lane:
        """The lane that stores rows."""
        return self.lanes[-1]

    def values(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return asdict(self)
