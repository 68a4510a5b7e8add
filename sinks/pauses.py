"""How long a sink waits before it tries again what failed."""

from __future__ import annotations

import time
from collections.abc import Callable


def backoff(failures: int, first: float, most: float) -> float:
    """Seconds to wait after so many failures in a row: `first`, twice as long each time, at most `most`."""
    return min(most, first * 2.0 ** (min(failures, 16) - 1))


def pause(seconds: float, stop: Callable[[], bool]) -> None:
    """Sleep, but not on once `stop()` says so."""
    end = time.monotonic() + seconds
    while not stop() and time.monotonic() < end:
        time.sleep(0.05)
