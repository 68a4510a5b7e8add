"""The local stack with all workers on it: what `up`, `demo`, the tests and the benchmarks start."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cli.migrate import migrate
from config.settings import PROVIDER_NAMES, Settings, settings_in
from local.processes import Child, free_port, wait_until
from local.stack import Stack, local_stack

#: Command lines of the worker processes, and how many lanes each of them reads.
WORKERS: dict[str, tuple[list[str], int]] = {
    "admit": (["worker", "admit"], 1),
    "complete": (["worker", "complete"], len(PROVIDER_NAMES)),
    "meter": (["worker", "meter"], 1),
    "sink": (["sink"], 0),
}
READY_SECONDS = 60.0

#: A group of a local stack need not wait long for a member that is gone.
LOCAL_SETTINGS = {"MILLSTREAM_SESSION_TIMEOUT_SECONDS": "10", "MILLSTREAM_REBALANCE_TIMEOUT_SECONDS": "15"}


@dataclass
class Running:
    """A stack, the environment that points processes at it, and its workers by name."""

    stack: Stack
    environment: dict[str, str]
    settings: Settings
    workers: dict[str, Child]
    #: The base address of each worker's `/metrics`, `/healthz` and `/readyz`.
    monitoring: dict[str, str] = field(default_factory=dict)

    def start_worker(self, name: str, arguments: list[str], extra: Mapping[str, str] | None = None) -> Child:
        """Start one more process of ours, `millstream ARGUMENTS`, and keep it under `name`."""
        port = free_port()
        self.monitoring[name] = f"http://127.0.0.1:{port}"
        self.workers[name] = Child(
            [sys.executable, "-m", "cli.main", *arguments],
            {**self.environment, "MILLSTREAM_METRICS_PORT": str(port), **(extra or {})},
            log_path=Path(self.stack.data_dir) / f"{name}.log",
            name=f"worker {name}",
        )
        return self.workers[name]

    def wait_ready(self, name: str, lanes: int) -> None:
        """Return when a worker reads its partitions; RuntimeError with the end of its log when it does not come up."""
        child = self.workers[name]
        wait_until(
            lambda: child.log_tail(200).count(" partitions.") >= lanes,
            READY_SECONDS,
            f"worker {name} to read its topics",
            child,
        )

    def stop(self) -> None:
        """Stop the workers, all at once."""
        for child in self.workers.values():
            child.signal(15)
        for child in self.workers.values():
            child.stop(self.settings.drain_seconds + 10)


@contextmanager
def running(
    data_dir: Path | None = None,
    *,
    workers: Mapping[str, tuple[list[str], int]] = WORKERS,
    environment: Mapping[str, str] | None = None,
    postgres: bool = False,
    registry: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> Iterator[Running]:
    """Start the local stack, migrate it and start workers; all of it is stopped at the end, however that comes.

    `environment` adds to the variables that the processes get.
    """
    with local_stack(data_dir, postgres=postgres, registry=registry, progress=progress) as stack:
        ours = {**LOCAL_SETTINGS, **stack.environment(), **(environment or {})}
        whole = {**os.environ, **ours, "PYTHONUNBUFFERED": "1"}
        run = Running(stack, whole, settings_in(whole), {})
        migrate(run.settings)
        progress("Topics and tables are ready.")
        try:
            for name, (arguments, _) in workers.items():
                run.start_worker(name, arguments)
            for name, (_, lanes) in workers.items():
                run.wait_ready(name, lanes)
            progress(f"Workers {', '.join(workers)} are running.")
            yield run
        finally:
            run.stop()
