"""The faults. Each is one entry: a function that begins it, yields while it lasts, and ends it; the decorator says what it strikes.

A fault that is over at once, such as a kill, yields last. What ends by itself is started again by the supervisor.
"""

from __future__ import annotations

import resource
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy import text

from cli.chaos.schedule import Kind
from cli.chaos.world import World
from cli.errors import CommandError
from cli.running import WORKERS
from config.database import open_database
from local.stack import Server

Strike = Callable[[World, str], Iterator[None]]
Targets = Callable[[World], Sequence[str]]

PROVIDERS = ("openai", "anthropic", "google")
BURST = 50
RESTARTS = 3
#: How far a clock is set forward, or back, in seconds: beyond every lease and session.
CLOCK_STEP = 45


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault: what it does in one sentence, what it strikes in a world, how long it may last (seconds), and how it is done.

    `lacking` says why it cannot be done in a world, None where it can.
    """

    name: str
    what: str
    targets: Targets
    seconds: tuple[float, float]
    strike: Strike
    lacking: Callable[[World], str | None]

    def kind(self, world: World) -> Kind:
        """What the schedule needs of it."""
        return Kind(self.name, tuple(self.targets(world)), *self.seconds)


FAULTS: dict[str, Fault] = {}


def fault(
    name: str, what: str, targets: Targets, seconds: tuple[float, float],
    lacking: Callable[[World], str | None] = lambda _: None,
) -> Callable[[Strike], Strike]:  # fmt: skip
    """Enter a fault."""

    def enter(strike: Strike) -> Strike:
        FAULTS[name] = Fault(name, what, targets, seconds, strike, lacking)
        return strike

    return enter


def chosen(names: str) -> list[Fault]:
    """The faults of a comma list, or all; `CommandError` for a name that there is not."""
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    if wanted == ["all"]:
        return list(FAULTS.values())
    if unknown := [name for name in wanted if name not in FAULTS]:
        raise CommandError(f"There is no fault {unknown[0]!r}; the faults are {', '.join(FAULTS)}, and all.")
    if not wanted:
        raise CommandError(f"--faults names no fault; the faults are {', '.join(FAULTS)}, and all.")
    return [FAULTS[name] for name in dict.fromkeys(wanted)]


def possible(faults: Iterable[Fault], world: World) -> tuple[list[Fault], dict[str, str]]:
    """Those that can be done in this world, and why the others cannot."""
    can, cannot = [], {}
    for one in faults:
        if (why := one.lacking(world)) is not None:
            cannot[one.name] = why
        else:
            can.append(one)
    return can, cannot


def _only(target: str) -> Targets:
    return lambda _: (target,)


def _workers(world: World) -> Sequence[str]:
    return world.workers


def _sinks(world: World) -> Sequence[str]:
    return world.sinks


def _processes(world: World) -> Sequence[str]:
    return (*world.workers, *world.sinks)


def _proxied(world: World) -> Sequence[str]:
    return tuple(world.proxies)


def _providers(_: World) -> Sequence[str]:
    return PROVIDERS


def _without_postgres(world: World) -> str | None:
    return None if world.postgres else "the ledger is in SQLite, which is no server"


def _without_sqlite(world: World) -> str | None:
    return "the ledger is in PostgreSQL, whose disk is the server's own" if world.postgres else None


# --- processes of ours


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


# --- the network


@fault("network-cut", "A process's connections to the broker are reset and refused.", _proxied, (1, 10))
def _network_cut(world: World, target: str) -> Iterator[None]:
    world.proxies[target].cut()
    try:
        yield
    finally:
        world.proxies[target].mend()


@fault("network-hold", "Nothing passes between a process and the broker, and neither is told.", _proxied, (1, 10))
def _network_hold(world: World, target: str) -> Iterator[None]:
    world.proxies[target].hold()
    try:
        yield
    finally:
        world.proxies[target].mend()


# --- the servers


def _bring_back(server: Server) -> None:
    """Start a server again; on a busy machine that may take longer than its own patience."""
    for tries_left in reversed(range(RESTARTS)):
        try:
            server.start()
            return
        except (RuntimeError, TimeoutError):
            if not tries_left:
                raise


@fault("kafka-kill", "The broker is killed (SIGKILL) and started again with its data.", _only("kafka"), (0.5, 6))
def _kafka_kill(world: World, _: str) -> Iterator[None]:
    world.broker.kill()
    try:
        yield
    finally:
        _bring_back(world.broker)


@fault("kafka-stop", "The broker is shut down in order and started again.", _only("kafka"), (0.5, 6))
def _kafka_stop(world: World, _: str) -> Iterator[None]:
    world.broker.stop()
    try:
        yield
    finally:
        _bring_back(world.broker)


@fault("kafka-freeze", "The broker stands still (SIGSTOP, SIGCONT).", _only("kafka"), (1, 10))
def _kafka_freeze(world: World, _: str) -> Iterator[None]:
    child = world.broker.child
    assert child is not None
    child.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        child.signal(signal.SIGCONT)


@fault(
    "clickhouse-kill", "ClickHouse is killed (SIGKILL) and started again with its data.", _only("clickhouse"), (1, 8)
)
def _clickhouse_kill(world: World, _: str) -> Iterator[None]:
    world.clickhouse.kill()
    try:
        yield
    finally:
        _bring_back(world.clickhouse)


@fault("clickhouse-stop", "ClickHouse is shut down in order and started again.", _only("clickhouse"), (1, 8))
def _clickhouse_stop(world: World, _: str) -> Iterator[None]:
    world.clickhouse.stop()
    try:
        yield
    finally:
        _bring_back(world.clickhouse)


@fault("clickhouse-freeze", "ClickHouse stands still (SIGSTOP, SIGCONT).", _only("clickhouse"), (1, 8))
def _clickhouse_freeze(world: World, _: str) -> Iterator[None]:
    child = world.clickhouse.child
    assert child is not None
    child.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        child.signal(signal.SIGCONT)


@fault(
    "ledger-kill",
    "PostgreSQL is killed (SIGKILL) and started again with its data.",
    _only("ledger"),
    (0.5, 6),
    _without_postgres,
)
def _ledger_kill(world: World, _: str) -> Iterator[None]:
    assert world.postgres is not None
    world.postgres.kill()
    try:
        yield
    finally:
        _bring_back(world.postgres)


@fault("ledger-stop", "PostgreSQL is shut down (fast) and started again.", _only("ledger"), (0.5, 6), _without_postgres)
def _ledger_stop(world: World, _: str) -> Iterator[None]:
    assert world.postgres is not None
    world.postgres.stop()
    try:
        yield
    finally:
        _bring_back(world.postgres)


@fault(
    "ledger-lock",
    "Somebody else holds the whole ledger in a transaction: SQLite's write lock, PostgreSQL's LOCK TABLE.",
    _only("ledger"),
    (1, 8),
)
def _ledger_lock(world: World, _: str) -> Iterator[None]:
    engine = open_database(world.run.settings.database_url)
    try:
        # On SQLite the engine begins every transaction with the write lock.
        with engine.begin() as db:
            if engine.dialect.name == "postgresql":
                db.execute(text("LOCK TABLE requests, attempts, accounts, workers IN ACCESS EXCLUSIVE MODE"))
            yield
    finally:
        engine.dispose()


# --- the providers


@fault("provider-down", "A provider answers every call with 503.", _providers, (1, 8))
def _provider_down(world: World, target: str) -> Iterator[None]:
    yield from _behaving(world, target, status=503)


@fault("provider-reset", "A provider resets every connection, after it has counted the call.", _providers, (1, 6))
def _provider_reset(world: World, target: str) -> Iterator[None]:
    yield from _behaving(world, target, fault="reset")


@fault("provider-hang", "A provider takes calls and never answers.", _providers, (1, 6))
def _provider_hang(world: World, target: str) -> Iterator[None]:
    yield from _behaving(world, target, fault="hang")


@fault("provider-slow", "A provider takes 4 s for every answer.", _providers, (2, 10))
def _provider_slow(world: World, target: str) -> Iterator[None]:
    yield from _behaving(world, target, latency_ms=4_000)


@fault("provider-limit", "A provider answers every call with 429 and a Retry-After.", _providers, (1, 8))
def _provider_limit(world: World, target: str) -> Iterator[None]:
    yield from _behaving(world, target, status=429, retry_after_ms=400)


def _behaving(world: World, name: str, **behaviour: object) -> Iterator[None]:
    world.provider(name, behaviour)
    try:
        yield
    finally:
        world.provider(name, {})


# --- the traffic


@fault("repeat-burst", f"{BURST} of the latest requests are published again at once.", _only("traffic"), (0, 0))
def _repeat_burst(world: World, _: str) -> Iterator[None]:
    assert world.traffic is not None
    world.traffic.repeat(BURST)
    yield


@fault("poison-burst", f"{BURST} records that are no requests are published at once.", _only("traffic"), (0, 0))
def _poison_burst(world: World, _: str) -> Iterator[None]:
    assert world.traffic is not None
    world.traffic.poison(BURST)
    yield
