"""Carry out a schedule of faults."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from cli.chaos.faults import Fault
from cli.chaos.schedule import REST_SECONDS, Planned
from cli.chaos.world import World

AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class Struck:
    """A fault that was carried out, in seconds from the start of the traffic; `problem` says why it was not, or not ended."""

    fault: str
    target: str
    began: float
    ended: float
    problem: str | None = None


class Torment:
    """Strikes a world as planned; `struck` holds what was done, in the order of the ends."""

    def __init__(
        self, world: World, faults: Mapping[str, Fault], schedule: Sequence[Planned], said: Callable[[Planned], None]
    ) -> None:
        self._world, self._faults, self._schedule, self._said = world, faults, schedule, said
        self._busy: dict[str, threading.Lock] = defaultdict(threading.Lock)
        self.struck: list[Struck] = []

    def run(self, begun: float, stop: threading.Event) -> None:
        """Return when the last fault has ended; `begun` is the start of the traffic (`time.monotonic`). `stop` ends every fault now."""
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="fault") as threads:
            for planned in self._schedule:
                if stop.wait(max(0.0, begun + planned.at - time.monotonic())):
                    return
                threads.submit(self._strike, planned, self._busy[planned.target], begun, stop)

    def _strike(self, planned: Planned, alone: threading.Lock, begun: float, stop: threading.Event) -> None:
        # Recovery can take longer than the schedule allows for. A target suffers one fault at a time all the same, and is well for
        # as long as it was not.
        with alone:
            if stop.is_set():
                return
            self._said(planned)
            began, problem = time.monotonic(), None
            try:
                for _ in self._faults[planned.fault].strike(self._world, planned.target):
                    stop.wait(planned.seconds)
            except Exception as why:
                problem = f"{type(why).__name__}: {why}"
            ended = time.monotonic()
            self.struck.append(Struck(planned.fault, planned.target, began - begun, ended - begun, problem))
            stop.wait(max(REST_SECONDS, ended - began))
