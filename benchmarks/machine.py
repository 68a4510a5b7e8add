"""What processes cost, and what this machine and its software are."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import psutil

PACKAGES = (
    "faust-streaming", "aiokafka", "confluent-kafka", "openai", "aiohttp", "fastavro", "sqlalchemy",
    "uvloop", "orjson", "chdb",
)  # fmt: skip


@dataclass(frozen=True)
class Cost:
    """What processes used between two moments: CPU seconds by name, wall seconds, and the CPU seconds of all others."""

    cpu: dict[str, float]
    seconds: float
    others: float


class Gauge:
    """Reads the CPU time and the memory of processes, one or several under a name."""

    def __init__(self, pids: Mapping[str, int | Sequence[int]]) -> None:
        self._processes = {
            name: [psutil.Process(one) for one in ([pid] if isinstance(pid, int) else pid)]
            for name, pid in pids.items()
        }
        self._cpu, self._all, self._at = self._read()

    def since(self) -> Cost:
        """The cost since this gauge was made."""
        cpu, everything, at = self._read()
        used = {name: cpu[name] - before for name, before in self._cpu.items()}
        return Cost(used, at - self._at, max(0.0, everything - self._all - sum(used.values())))

    def memory(self) -> dict[str, int]:
        """Resident bytes by name."""
        return {name: sum(one.memory_info().rss for one in group) for name, group in self._processes.items()}

    def _read(self) -> tuple[dict[str, float], float, float]:
        cpu = {}
        for name, group in self._processes.items():
            times = [one.cpu_times() for one in group]
            cpu[name] = sum(one.user + one.system for one in times)
        machine = psutil.cpu_times()
        idle = machine.idle + getattr(machine, "iowait", 0.0)
        return cpu, sum(machine[:8]) - idle, time.perf_counter()


def tree(pid: int) -> list[int]:
    """A process and all that descend from it now."""
    return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]


def machine() -> dict[str, Any]:
    """Cores, memory, processor and system of this machine; nothing that names it."""
    return {
        "cores": psutil.cpu_count() or 1,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "architecture": platform.machine(),
        "processor": _processor(),
        "system": platform.system(),
    }


def versions(clickhouse: str) -> dict[str, str]:
    """The versions of what was measured."""
    return {"python": platform.python_version(), "clickhouse": clickhouse, **{name: version(name) for name in PACKAGES}}


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as info:
            return next((line.partition(":")[2].strip() for line in info if line.startswith("model name")), "unknown")
    except OSError:
        return platform.processor() or "unknown"
