"""Look at the stack once a second while it suffers: throughput, lag, the oldest record in flight, memory."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

import psutil
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from cli import kafka
from cli.chaos.energy import overdrawn
from cli.chaos.limits import overspent
from cli.chaos.world import World
from cli.errors import CommandError
from cli.top.groups import Lags, groups
from cli.top.workers import pages
from config.database import open_database, reading
from core.topics import RESPONSES
from sinks.rows import FACTS

LOOK_SECONDS = 1.0
OLDEST = ("millstream_oldest_unacknowledged_seconds", "millstream_sink_lag_seconds")


@dataclass(frozen=True, slots=True)
class Sample:
    """The state at one moment, `at` seconds after the start of the traffic.

    `published` and `answered` count from the start, each request id once for the answers. `lag` is in records by stage, None while
    Kafka does not tell; `oldest` in seconds; `memory` resident bytes by process, of all of a stage's together.
    """

    at: float
    published: int
    answered: int
    lag: dict[str, int] | None
    oldest: float
    memory: dict[str, int]


@dataclass
class Watch:
    """Takes samples in the background from `start` to `stop`."""

    world: World
    begun: float
    samples: list[Sample] = field(default_factory=list)
    answered: set[bytes] = field(default_factory=set)
    lag: dict[str, int] | None = None
    _stopped: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> Watch:
        """Begin; the answers are counted from here on."""
        reader = kafka.reader(self.world.run.settings, RESPONSES, from_beginning=False)

        def count() -> None:
            for message in kafka.records(reader):
                if message is not None and message.key() is not None:
                    self.answered.add(message.key())
                if self._stopped.is_set():
                    break
            reader.close()

        for work in (count, self._keep_lag, self._keep_samples, self._keep_limits, self._keep_energy):
            self._threads.append(threading.Thread(target=work, name=f"watch {work.__name__}", daemon=True))
            self._threads[-1].start()
        return self

    def stop(self) -> None:
        """End; the samples stay."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _keep_lag(self) -> None:
        settings = self.world.run.settings
        lags = Lags(settings, groups(settings, [fact.topic for fact in FACTS]))
        while not self._stopped.wait(LOOK_SECONDS):
            try:
                by_stage = Counter[str]()
                for lane, lag in lags.read().items():
                    by_stage[lane.partition("-")[0]] += lag
                self.lag = dict(by_stage)
            except CommandError:
                self.lag = None
        lags.close()

    def _keep_samples(self) -> None:
        while not self._stopped.wait(LOOK_SECONDS):
            traffic = self.world.traffic
            self.samples.append(
                Sample(
                    time.monotonic() - self.begun, traffic.records if traffic else 0, len(self.answered), self.lag,
                    _oldest(pages(f"{address}/metrics" for address in list(self.world.run.monitoring.values())[-12:])),
                    self._memory(),
                )
            )  # fmt: skip

    def _keep_limits(self) -> None:
        self._keep_overspent("limits", overspent, LOOK_SECONDS / 5)

    def _keep_energy(self) -> None:
        self._keep_overspent("energy", overdrawn, LOOK_SECONDS)

    def _keep_overspent(self, what: str, found: Callable[[Connection], set[str]], pause: float) -> None:
        engine = open_database(self.world.run.settings.database_url)
        while not self._stopped.wait(pause):
            with suppress(SQLAlchemyError), reading(engine) as db:
                self.world.overspent |= found(db)
                self.world.looks[what] += 1
        engine.dispose()

    def _memory(self) -> dict[str, int]:
        pids = [(name.partition("-")[0], pid) for name, pid in self.world.supervisor.pids().items()]
        pids += [(name, server.child.pid) for name, server in self.world.servers.items() if server.child is not None]
        found: dict[str, int] = {}
        for name, pid in pids:
            with suppress(psutil.Error):
                found[name] = found.get(name, 0) + psutil.Process(pid).memory_info().rss
        return found


def _oldest(texts: Iterable[str]) -> float:
    ages = [
        sample.value
        for text in texts
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name in OLDEST
    ]
    return max(ages, default=0.0)


def wait_until_quiet(watch: Watch, settled: Callable[[], bool], seconds: float) -> bool:
    """Return when no stage is behind and the ledger is settled, at two looks in a row; False when `seconds` have passed before."""
    ends = time.monotonic() + seconds
    quiet = 0
    while quiet < 2:
        if time.monotonic() > ends:
            return False
        time.sleep(LOOK_SECONDS)
        lag = watch.lag
        still = lag is not None and not any(lag.values()) and watch.world.supervisor.all_running() and settled()
        quiet = quiet + 1 if still else 0
    return True
