"""Keep the processes of ours running: whoever ends is started again, as a supervisor of a deployment does it."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from cli.running import Running
from local.processes import Child, wait_until

LOOK_SECONDS = 0.1
PAUSE_SECONDS = 0.5
PATIENCE_SECONDS = 30.0
START_SECONDS = 180.0
#: What a worker logs for each lane that has its partitions.
READS = " partitions."


@dataclass(frozen=True, slots=True)
class Member:
    """A process to keep running: its `millstream` command line, the lanes it reads and what its environment has beyond the stack's."""

    name: str
    arguments: list[str]
    lanes: int
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def stage(self) -> str:
        """The part of the name before its number: admit, complete, meter or sink."""
        return self.name.partition("-")[0]


@dataclass(frozen=True, slots=True)
class Ended:
    """A process that ended: when (`time.monotonic`), who, its exit status (the negative signal number) and what its log said last."""

    at: float
    name: str
    status: int
    said: str


class Supervisor:
    """Starts members and starts them again when they end, until `stop`; faults ask it for processes and for absences."""

    def __init__(self, run: Running) -> None:
        self._run = run
        self._members: dict[str, Member] = {}
        self._away: set[str] = set()
        self._down_since: dict[str, float] = {}
        self._lock = threading.RLock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)
        self.ended: list[Ended] = []

    def start(self, members: list[Member]) -> None:
        """Start all of them and wait until they read their topics; RuntimeError with a log's end when one does not."""
        for member in members:
            self.add(member)
        for member in members:
            self._wait_ready(member)
        self._thread.start()

    def _wait_ready(self, member: Member) -> None:
        child = self._run.workers[member.name]
        what = f"{member.name} to read its topics"
        wait_until(lambda: child.log_tail(200).count(READS) >= member.lanes, START_SECONDS, what, child)

    def stop(self) -> None:
        """Start nothing again any more; the processes go on."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def add(self, member: Member) -> None:
        """Start one more."""
        with self._lock:
            self._members[member.name] = member
            self._run.start_worker(member.name, member.arguments, member.environment)

    def remove(self, name: str) -> None:
        """Let one go for good, with SIGTERM."""
        with self._lock:
            self._members.pop(name, None)
            child = self._run.workers.get(name)
        if child is not None:
            child.stop(PATIENCE_SECONDS)

    def send_away(self, name: str) -> None:
        """End one with SIGTERM and leave it so until `call_back`."""
        with self._lock:
            self._away.add(name)
        self.process(name).signal(15)

    def call_back(self, name: str) -> None:
        """Start one again that was sent away, once it has ended."""
        with self._lock:
            self._away.discard(name)

    def process(self, name: str) -> Child:
        """The process of a member; when it is just being started again, that is waited for. TimeoutError when it does not come."""
        wait_until(lambda: name in self._away or self._run.workers[name].running, PATIENCE_SECONDS, f"{name} to run")
        return self._run.workers[name]

    def all_running(self) -> bool:
        """Whether nobody is missing."""
        with self._lock:
            return not self._away and all(self._run.workers[name].running for name in self._members)

    def pids(self) -> dict[str, int]:
        """The process ids by name, of those that run."""
        with self._lock:
            return {name: child.pid for name, child in self._run.workers.items() if child.running}

    def _watch(self) -> None:
        while not self._stopped.wait(LOOK_SECONDS):
            with self._lock:
                for member in self._members.values():
                    self._look_at(member)

    def _look_at(self, member: Member) -> None:
        child, now = self._run.workers[member.name], time.monotonic()
        status = child.returncode
        if status is None:
            return
        if member.name not in self._down_since:
            self._down_since[member.name] = now
            self.ended.append(Ended(now, member.name, status, child.log_tail(1)))
        if member.name not in self._away and now - self._down_since[member.name] >= PAUSE_SECONDS:
            del self._down_since[member.name]
            self._run.start_worker(member.name, member.arguments, member.environment)
