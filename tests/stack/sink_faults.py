"""What a sink must survive, on real servers: kills at every point of its work, and a store that is away under load.

`python -m tests.stack.sink_faults --seeds 200` kills; `python -m tests.stack.sink_faults --away 120` takes the store away.
"""

from __future__ import annotations

import argparse
import os
import queue
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from core.topics import USAGE
from local.broker import KafkaBroker
from local.clickhouse import ClickHouseServer
from tests.examples import NOON
from tests.stack.sink_dying import POINTS, Doom
from tests.stack.sink_world import MONTH_END, World, eventually, usage

PATIENCE_SECONDS = 60.0
#: Past this much more memory than before, a sink whose store is away would be keeping what arrives.
GROWTH_AWAY = 60_000_000
#: What the batches of 20,000 rows of a few partitions take while they are decoded and inserted.
GROWTH = 300_000_000


class Nursery:
    """A process that forks sinks that die, one at a time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.stack.sink_dying"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._ended = threading.Event()
        self._ended.set()
        self._pid = 0
        self._status = 0

    def start(self, doom: Doom) -> None:
        """Another sink; the one before has ended."""
        assert self._process.stdin
        self._process.stdin.write(doom.as_json() + "\n")
        self._process.stdin.flush()
        self._pid = self._number()
        self._ended.clear()
        threading.Thread(target=self._await_end).start()

    def _number(self) -> int:
        assert self._process.stdout
        return int(self._process.stdout.readline())

    def _await_end(self) -> None:
        self._status = self._number()
        self._ended.set()

    def status(self, seconds: float = PATIENCE_SECONDS) -> int | None:
        """How the sink ended (-9: by SIGKILL), None when it has not within this time."""
        return self._status if self._ended.wait(seconds) else None

    def end_with(self, number: int) -> None:
        """Send the sink a signal."""
        # It may end, and be reaped, between the question and the signal.
        with suppress(ProcessLookupError):
            if not self._ended.is_set():
                os.kill(self._pid, number)

    def close(self) -> None:
        """End the sink and the process."""
        self.end_with(signal.SIGKILL)
        self._ended.wait()
        self._process.communicate()


@contextmanager
def nurseries(count: int) -> Iterator[queue.SimpleQueue[Nursery]]:
    """So many of them to take from and to put back."""
    with ExitStack() as stack:
        free: queue.SimpleQueue[Nursery] = queue.SimpleQueue()
        for _ in range(count):
            nursery = Nursery()
            stack.callback(nursery.close)
            free.put(nursery)
        yield free


def survive(kafka: KafkaBroker, clickhouse: ClickHouseServer, nursery: Nursery, seed: int) -> Counter[str]:
    """Kill sinks at points and moments that the seed picks while events arrive; then the store must equal the log.

    Every fifth seed begins with the same point. Each sink has another size of batches than the one before, so a batch that was
    begun is the same again only by its recorded bounds. Returns how many sinks died at each point.
    """
    rng = random.Random(seed)
    world = World.make(kafka, clickhouse, partitions=2)
    sizes = rng.sample((1, 5, 20, 1_000), 3)
    values = [
        world.settings.model_copy(update={"sink_batch_rows": rows}).model_dump_json(exclude_defaults=True)
        for rows in sizes
    ]
    deaths: Counter[str] = Counter()
    try:
        for number, point in enumerate((POINTS[seed % len(POINTS)], *rng.sample(POINTS, rng.randrange(2)))):
            world.send_usage(rng, rng.randrange(20, 60), again=0.1, around=(NOON, MONTH_END))
            goal = len(world.usage_of_the_log())
            nth = rng.randrange(1, 4) if sizes[number] < 20 else 1
            nursery.start(Doom(values[number], point, nth, rng.choice((0.0, 0.5, 0.99, 1.0, 1.0)), rng.random() * 0.02))
            while nursery.status(0.1) is None and world.count() < goal:
                pass
            nursery.end_with(signal.SIGTERM)
            deaths[point if nursery.status() == -signal.SIGKILL else "none"] += 1
        nursery.start(Doom(values[-1]))
        # Its place in the log and not the count of its rows: ClickHouse may still be at the rollups of an insert whose sink was killed.
        eventually(world.stored_up_to_the_end, PATIENCE_SECONDS)
        nursery.end_with(signal.SIGTERM)
        status = nursery.status()
        assert status == 0, f"The last sink ended with {status}."
        world.assert_store_equals_log()
        world.drop()
    finally:
        nursery.end_with(signal.SIGKILL)
        world.end()
    return deaths


def survive_all(kafka: KafkaBroker, clickhouse: ClickHouseServer, seeds: Iterable[int], abreast: int) -> Counter[str]:
    """`survive` every seed, some at a time; returns the deaths by point."""
    with nurseries(abreast) as free, ThreadPoolExecutor(abreast) as pool:

        def one(seed: int) -> Counter[str]:
            nursery = free.get()
            try:
                return survive(kafka, clickhouse, nursery, seed)
            except BaseException as failed:
                failed.add_note(f"This was seed {seed}.")
                raise
            finally:
                free.put(nursery)

        return sum(pool.map(one, seeds), Counter())


@dataclass(frozen=True)
class Away:
    """What came of taking the store away: events sent, memory in bytes, seconds until the sink noticed that it was back and
    until it had caught up."""

    events: int
    memory_before: int
    memory_away: int
    memory_most: int
    behind: int
    noticed_seconds: float
    caught_up_seconds: float

    def __str__(self) -> str:
        rate = self.behind / (self.caught_up_seconds - self.noticed_seconds)
        return (
            f"{self.events} events; sink memory {self.memory_before / 1e6:.0f} MB before, "
            f"{self.memory_away / 1e6:.0f} MB at most while it was away, {self.memory_most / 1e6:.0f} MB at most after; {self.behind} events behind when ClickHouse answered again, noticed "
            f"after {self.noticed_seconds:.1f} s and caught up after {self.caught_up_seconds:.1f} s: {rate:.0f} events/s"
        )


def store_away(world: World, seconds: float, rate: int) -> Away:
    """Take ClickHouse away for so long while events arrive at a rate, bring it back, and wait until all is stored."""
    rng = random.Random(seconds)
    sink = world.start_sink()
    world.send_usage(rng, 100)
    eventually(lambda: world.count() == 100)
    before = most = memory_of(sink.pid)
    sent = 100
    world.clickhouse.kill()
    began = time.monotonic()
    while (elapsed := time.monotonic() - began) < seconds:
        while sent - 100 < elapsed * rate:
            event = usage(rng)
            world.send("LlmUsage", USAGE.name, event, event["attempt_id"])
            sent += 1
        most = max(most, memory_of(sink.pid))
        time.sleep(0.05)
    world.producer.flush()
    world.clickhouse.start()
    back = time.monotonic()
    while_away, most = most, 0
    behind, noticed = sent - world.count(), 0.0
    while (stored := world.count()) < sent:
        waited = time.monotonic() - back
        assert waited < 2 * PATIENCE_SECONDS, f"{sent - stored} events were not stored in time."
        noticed = noticed or (waited if stored > sent - behind else 0.0)
        most = max(most, memory_of(sink.pid))
        time.sleep(0.05)
    away = Away(sent, before, while_away, most, behind, noticed, time.monotonic() - back)
    world.assert_store_equals_log()
    assert while_away - before < GROWTH_AWAY, str(away)
    assert most - before < GROWTH, str(away)
    return away


def memory_of(pid: int) -> int:
    """The resident memory of a process in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Run a suite on servers of its own and print what came of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.stack.sink_faults", description=__doc__)
    parser.add_argument("--seeds", type=int, default=0, help="how many seeds of kills")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--abreast", type=int, default=4, help="how many seeds at a time")
    parser.add_argument("--away", type=float, default=0.0, help="seconds for which ClickHouse is away")
    parser.add_argument("--rate", type=int, default=500, help="events a second meanwhile")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        kafka, clickhouse = KafkaBroker(Path(folder, "kafka")), ClickHouseServer(Path(folder, "clickhouse"))
        try:
            clickhouse.start()
            kafka.start()
            if options.seeds:
                began = time.monotonic()
                seeds = range(options.first, options.first + options.seeds)
                deaths = survive_all(kafka, clickhouse, seeds, options.abreast)
                print(
                    f"{options.seeds} seeds in {time.monotonic() - began:.0f} s: the store equalled the log each time."
                )
                print("Sinks killed: " + ", ".join(f"{point} {deaths[point]}" for point in (*POINTS, "none")) + ".")
            if options.away:
                world = World.make(kafka, clickhouse, partitions=3)
                try:
                    print(store_away(world, options.away, options.rate))
                finally:
                    world.end()
        finally:
            kafka.stop()
            clickhouse.stop()


if __name__ == "__main__":
    main()
