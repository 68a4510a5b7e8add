"""Runs every server that Millstream needs, as child processes, for as long as a `with` block."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

from local.broker import choose_broker
from local.clickhouse import ClickHouseServer
from local.postgres import PostgresServer
from local.processes import Child, free_port, wait_until
from local.registry import SchemaRegistry

_ROOT = Path(__file__).parent.parent
_SIMULATOR_SECONDS = 30.0


@dataclass(frozen=True)
class Stack:
    """Addresses of a running stack; what `.millstream/stack.json` holds.

    `database_url` is a SQLAlchemy URL; `schema_registry_url` and `simulator_url` are None where absent;
    `processes` maps a server's name to its process id, `metrics` a worker's to the page that Prometheus reads, `providers` a
    provider's to the address at which the workers call it.
    """

    kafka_bootstrap: str
    clickhouse_url: str
    database_url: str
    simulator_url: str | None
    schema_registry_url: str | None
    data_dir: str
    processes: dict[str, int] = field(default_factory=dict)
    metrics: dict[str, str] = field(default_factory=dict)
    providers: dict[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        """Environment variables that point Millstream's processes and the providers' SDKs at this stack."""
        names = {
            "MILLSTREAM_KAFKA_BOOTSTRAP": self.kafka_bootstrap,
            # Said, it turns off what else this machine has set for a Kafka of its own.
            "MILLSTREAM_KAFKA_SECURITY_PROTOCOL": "PLAINTEXT",
            "MILLSTREAM_CLICKHOUSE_URL": self.clickhouse_url,
            "MILLSTREAM_DATABASE_URL": self.database_url,
        }
        if self.schema_registry_url:
            names["MILLSTREAM_SCHEMA_REGISTRY_URL"] = self.schema_registry_url
        if self.simulator_url:
            names |= {
                "OPENAI_BASE_URL": f"{self.simulator_url}/openai/v1",
                "OPENAI_API_KEY": "sim-key",
                "ANTHROPIC_BASE_URL": f"{self.simulator_url}/anthropic",
                "ANTHROPIC_API_KEY": "sim-key",
                "GOOGLE_GEMINI_BASE_URL": f"{self.simulator_url}/google",
                "GEMINI_API_KEY": "sim-key",
                "MILLSTREAM_OPENAI_COMPATIBLE_BASE_URL": f"{self.simulator_url}/openai/v1",
                "MILLSTREAM_OPENAI_COMPATIBLE_API_KEY": "sim-key",
            }
        return names

    def write(self, path: Path) -> None:
        """Writes the stack as JSON to `path`, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(path.name + ".new")
        new.write_text(json.dumps(asdict(self), indent=2) + "\n")
        new.replace(path)

    @classmethod
    def read(cls, path: Path) -> Stack:
        """Reads what `write` wrote; FileNotFoundError or ValueError says what to do when it cannot."""
        try:
            return cls(**json.loads(path.read_text()))
        except FileNotFoundError:
            raise FileNotFoundError(f"There is no {path}: no local stack runs here. Start `millstream up`.") from None
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path} is not a stack file ({error}). Remove it and start `millstream up`.") from error


class Server(Protocol):
    """What every server of the stack offers."""

    @property
    def child(self) -> Child | None:
        """Its process, once started."""

    def start(self) -> object:
        """Returns when clients can use it."""

    def stop(self) -> None:
        """Stops it; does nothing when it does not run."""


class SimulatorServer:
    """The provider simulator on a free port of 127.0.0.1, as a child process."""

    def __init__(self, data_dir: Path) -> None:
        self.port = free_port()
        self.child: Child | None = None
        self._log_path = data_dir / "simulator.log"

    @property
    def url(self) -> str:
        """`http://127.0.0.1:<port>`."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> SimulatorServer:
        """Starts it and waits until it answers."""
        command = [sys.executable, "-m", "local.simulator", "--port", str(self.port)]
        self.child = Child(command, log_path=self._log_path, name="the simulator", cwd=_ROOT)
        wait_until(self._answers, _SIMULATOR_SECONDS, f"the simulator to answer on {self.url}", self.child)
        return self

    def stop(self) -> None:
        """Stops it."""
        if self.child is not None:
            self.child.stop(5.0)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/_sim/ledger", timeout=2) as reply:
                return bool(reply.status == 200)
        except (urllib.error.URLError, OSError):
            return False


@contextmanager
def local_stack(
    data_dir: Path | None = None,
    *,
    simulator: bool = True,
    postgres: bool = False,
    registry: bool = False,
    progress: Callable[[str], None] = lambda line: None,
) -> Iterator[Stack]:
    """Starts Kafka, ClickHouse and what else is asked for, all at once; stops them in reverse order, always.

    Data and logs are under `data_dir`, which stays; None takes a temporary folder, removed at the end.
    Without `postgres` the database is SQLite, `ledger.db` in that folder. `progress` gets a line per step.
    Raises RuntimeError or TimeoutError with the end of the log of the server that does not come up.
    """
    with local_servers(
        data_dir, simulator=simulator, postgres=postgres, registry=registry, progress=progress
    ) as (stack, _):  # fmt: skip
        yield stack


@contextmanager
def local_servers(
    data_dir: Path | None = None,
    *,
    simulator: bool = True,
    postgres: bool = False,
    registry: bool = False,
    progress: Callable[[str], None] = lambda line: None,
    before: Callable[[Mapping[str, Server]], None] = lambda servers: None,
) -> Iterator[tuple[Stack, Mapping[str, Server]]]:
    """As `local_stack`, with the servers by name, to be stopped and started again; `before` gets them before they start."""
    folder = Path(tempfile.mkdtemp(prefix="millstream-")) if data_dir is None else data_dir.absolute()
    servers: dict[str, Server] = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if data_dir is None:
            folder.chmod(0o711)  # so that PostgreSQL, which root must run under another account, can enter
        servers["kafka"] = broker = choose_broker(folder / "kafka", progress)
        servers["clickhouse"] = clickhouse = ClickHouseServer(folder / "clickhouse")
        simulated = SimulatorServer(folder) if simulator else None
        database = PostgresServer(folder / "postgres") if postgres else None
        schemas = SchemaRegistry(folder / "registry", progress=progress) if registry else None
        optional = {"simulator": simulated, "postgres": database, "registry": schemas}
        servers |= {name: server for name, server in optional.items() if server is not None}
        before(servers)
        _start_all(servers, progress)
        stack = Stack(
            kafka_bootstrap=broker.bootstrap,
            clickhouse_url=clickhouse.url,
            database_url=database.url if database else f"sqlite:///{folder.as_posix()}/ledger.db",
            simulator_url=simulated.url if simulated else None,
            schema_registry_url=schemas.url if schemas else None,
            data_dir=str(folder),
            processes={name: server.child.pid for name, server in servers.items() if server.child},
        )
        yield stack, servers
    finally:
        with ExitStack() as stops:
            if data_dir is None:
                stops.callback(shutil.rmtree, folder, ignore_errors=True)
            for server in servers.values():
                stops.callback(server.stop)


def _start_all(servers: dict[str, Server], progress: Callable[[str], None]) -> None:
    """Starts all servers in parallel; when one fails, or on Ctrl-C, ends the others' waiting first."""

    def start(name: str) -> None:
        begin = time.monotonic()
        servers[name].start()
        progress(f"{name} is up after {time.monotonic() - begin:.1f} s.")

    with ThreadPoolExecutor(len(servers)) as threads:
        starts = [threads.submit(start, name) for name in servers]
        try:
            for done in as_completed(starts):
                done.result()
        except BaseException:
            for waiting in starts:
                waiting.cancel()
            for server in servers.values():
                if server.child is not None:
                    server.child.kill()
            raise
