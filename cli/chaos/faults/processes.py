"""Faults of our own processes: ended, stopped, missing, one too many, with a wrong clock or a full disk."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator, Sequence
from contextlib import suppress

from cli.chaos.faults.entry import fault
from cli.chaos.world import World
from cli.running import WORKERS

#: How far a clock is set forward, or back, in seconds: beyond every lease and session.
CLOCK_STEP = 45


def _workers(world: World) -> Sequence[str]:
    return world.workers


def _sinks(world: World) -> Sequence[str]:
    return world.sinks


def _processes(world: World) -> Sequence[str]:
    return (*world.workers, *world.sinks)


def _without_sqlite(world: World) -> str | None:
    return "the ledger is in PostgreSQL, whose disk is the server's own" if world.postgres else None


@fault("worker-kill", "A stage's process is killed (SIGKILL) and started again.", _workers, (0, 0))
@fault("sink-kill", "A sink is killed (SIGKILL) and started again.", _sinks, (0, 0))
def _kill(world: World, target: str) -> Iterator[None]:
    world.supervisor.process(target).signal(signal.SIGKILL)
    yield


@fault("worker-stop", "A stage's process is asked to end (SIGTERM) and started again.", _workers, (0, 0))
@fault("sink-stop", "A sink is asked to end (SIGTERM) and started again.", _sinks, (0, 0))
def _terminate(world: World, target: str) -> Iterator[None]:
    world.supervisor.process(target).signal(signal.SIGTERM)
    yield


@fault(
    "worker-freeze", "A stage's process stands still (SIGSTOP, SIGCONT), past its lease and session.", _workers, (1, 12)
)
@fault("sink-freeze", "A sink stands still (SIGSTOP, SIGCONT), past its session.", _sinks, (1, 12))
def _freeze(world: World, target: str) -> Iterator[None]:
    process = world.supervisor.process(target)
    process.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.signal(signal.SIGCONT)


@fault(
    "scale-down", "A process leaves its group (SIGTERM) and is missing for a while: two rebalances.", _processes, (2, 8)
)
def _scale_down(world: World, target: str) -> Iterator[None]:
    world.supervisor.send_away(target)
    try:
        yield
    finally:
        world.supervisor.call_back(target)


@fault(
    "scale-up",
    "One process more joins a stage's group and leaves it again: two rebalances.",
    lambda _: tuple(WORKERS),
    (6, 12),
)
def _scale_up(world: World, target: str) -> Iterator[None]:
    member = world.extra(target)
    world.supervisor.add(member)
    try:
        yield
    finally:
        world.supervisor.remove(member.name)


@fault(
    "clock-step", f"A stage's process has a clock that is {CLOCK_STEP} s ahead, then {CLOCK_STEP} s behind, then right.",
    _workers, (3, 8),
)  # fmt: skip
def _clock_step(world: World, target: str) -> Iterator[None]:
    file = world.clock_file(target)
    try:
        for step in (CLOCK_STEP, -CLOCK_STEP):
            file.write_text(str(step))
            yield
    finally:
        file.write_text("0")


@fault(
    "disk-full", "A stage's process can write nothing to any file (RLIMIT_FSIZE of 0), so neither to SQLite's: EFBIG.",
    _workers, (1, 6), _without_sqlite,
)  # fmt: skip
def _disk_full(world: World, target: str) -> Iterator[None]:
    pid = world.supervisor.process(target).pid
    limits = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        yield
    finally:
        # It may have ended by itself; the one that is started for it has no limit.
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)
