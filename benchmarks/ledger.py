"""What a request costs the ledger's PostgreSQL: `python -m benchmarks.ledger`

Four connections take requests through the ledger's four operations, each in a transaction of its own over batches of several sizes.
The server's CPU, its write-ahead log and its tables are divided by the requests. Prints a table, writes
`benchmarks/results/ledger.json`.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from sqlalchemy import Engine, text

from benchmarks.machine import Gauge, machine, tree
from benchmarks.report import table
from config import ledger, settling
from config.database import create_tables, open_database
from local.postgres import PostgresServer

RESULTS = Path(__file__).parent / "results" / "ledger.json"
CONNECTIONS = 4
BATCHES = {1: 400, 10: 2_000, 50: 8_000, 200: 16_000}
TENANTS = 100
#: As long as the packed events of the benchmarks' answers and usage are.
ANSWER, USAGE = b"a" * 900, b"u" * 650

Json = dict[str, Any]


def main() -> int:
    """Measure, print and write down."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # PostgreSQL refuses root; the account that it runs as instead has to enter.
        server = PostgresServer(Path(folder) / "data")
        server.start()
        try:
            engine = open_database(server.url)
            create_tables(engine)
            assert server.child is not None
            points = [_measure(engine, server.child.pid, batch, count) for batch, count in BATCHES.items()]
            with engine.begin() as db:
                version = str(db.execute(text("SHOW server_version")).scalar_one())
            engine.dispose()
        finally:
            server.stop()
    report = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(), "versions": {"postgresql": version}, "connections": CONNECTIONS, "points": points,
    }  # fmt: skip
    RESULTS.write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2) + b"\n")
    made = table(
        f"A request's four transactions on PostgreSQL {version}, {CONNECTIONS} connections",
        ("requests a batch", "requests/s", "server CPU ms", "our CPU ms", "log bytes", "stored bytes", "load"), "rrrrrrr",
    )  # fmt: skip
    for one in points:
        made.add_row(
            f"{one['batch']:,}", f"{one['requests_per_second']:,.0f}", f"{one['server_cpu_ms']:.3f}",
            f"{one['client_cpu_ms']:.3f}", f"{one['log_bytes']:,.0f}", f"{one['stored_bytes']:,.0f}",
            f"{one['load_average']:.1f}",
        )  # fmt: skip
    Console().print(made)
    return 0


def _measure(engine: Engine, pid: int, batch: int, count: int) -> Json:
    with ThreadPoolExecutor(CONNECTIONS) as threads:
        list(threads.map(lambda _: _requests(engine, batch, 3 * batch), range(CONNECTIONS)))  # opens the connections
        gauge, log, stored = Gauge({"server": tree(pid), "client": os.getpid()}), *_bytes(engine)
        began = time.perf_counter()
        done = sum(threads.map(lambda _: _requests(engine, batch, count // CONNECTIONS), range(CONNECTIONS)))
        took, cost = time.perf_counter() - began, gauge.since()
    log_after, stored_after = _bytes(engine)
    return {
        "batch": batch, "requests": done, "requests_per_second": done / took,
        "server_cpu_ms": cost.cpu["server"] / done * 1_000, "client_cpu_ms": cost.cpu["client"] / done * 1_000,
        "log_bytes": (log_after - log) / done, "stored_bytes": (stored_after - stored) / done,
        "load_average": round(os.getloadavg()[0], 2),
    }  # fmt: skip


def _requests(engine: Engine, batch: int, count: int) -> int:
    """Take `count` requests through their lives, `batch` at once; how many that were."""
    done = 0
    while done < count:
        now, ids = time.time_ns() // 1_000, [str(uuid.uuid4()) for _ in range(batch)]
        tenants = [f"tenant-{(done + place) % TENANTS}" for place in range(batch)]
        admissions = [
            ledger.Admission(one, b"h" * 32, tenant, 1_000, None, now) for one, tenant in zip(ids, tenants, strict=True)
        ]
        ended = ledger.EndedAttempt(1, USAGE, 70, "priced")
        lives = (
            (ledger.admit, admissions),
            (ledger.start, [ledger.Start(one, "bench", now, None, 3, True) for one in ids]),
            (ledger.end, [ledger.End(one, "bench", now, ended, ANSWER) for one in ids]),
            (settling.settle, [settling.Settlement(one, 1, 70, 1_000) for one in ids]),
        )
        for operation, entries in lives:
            with engine.begin() as db:
                results = operation(db, entries)  # type: ignore[operator]
        if not all(results):
            raise RuntimeError("The ledger did not settle every request.")
        done += batch
    return done


def _bytes(engine: Engine) -> tuple[int, int]:
    """Bytes ever written to the log, and those of the database now."""
    with engine.begin() as db:
        log = db.execute(text("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")).scalar_one()
        return int(log), int(db.execute(text("SELECT pg_database_size(current_database())")).scalar_one())


if __name__ == "__main__":
    sys.exit(main())
