"""Look at everything once."""

from __future__ import annotations

import time
from collections.abc import Sequence

from cli.errors import CommandError
from cli.stackfile import worker_pages
from cli.top.figures import Lane, Look
from cli.top.groups import Lags, groups
from cli.top.minute import last_minute
from cli.top.workers import fill, pages
from config.settings import Settings
from sinks.query import QueryFailed, Store
from sinks.rows import FACTS


class Lookout:
    """Keeps the connections between looks."""

    def __init__(self, settings: Settings, addresses: Sequence[str] | None = None) -> None:
        """`addresses` are the workers' metrics pages; None takes those of this folder's stack."""
        self._groups = groups(settings, [fact.topic for fact in FACTS])
        self._lags = Lags(settings, self._groups)
        self._store = Store(settings)
        self._addresses = addresses

    def look(self) -> Look:
        """What there is to see now; whatever does not answer is left out and named in `problems`."""
        look = Look(time.time_ns() // 1_000, [Lane(name) for name in self._groups])
        try:
            lags = self._lags.read()
            # A provider that is not served here has no topic, so it has no lag and no lane.
            look.lanes = [lane for lane in look.lanes if lane.name in lags or not lane.name.startswith("complete-")]
            for lane in look.lanes:
                lane.lag = lags.get(lane.name)
        except CommandError as why:
            look.problems.append(str(why))
        try:
            look.minute, look.freshness = last_minute(self._store, look.lanes)
        except QueryFailed as why:
            look.problems.append(str(why))
        fill(look.lanes, pages(worker_pages() if self._addresses is None else self._addresses))
        return look
