"""What limits cost a request: `python -m benchmarks.limits`

A request's four transactions on SQLite, 200 requests a batch as a busy stage has them: without a limit, and with limits of money
on five levels (platform, tenant, project, user, key; 1,000 users and keys) and of requests a minute on the tenant. Rounds of
both alternate. Prints a table, writes `benchmarks/results/limits.json`.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path

import orjson
from rich.console import Console
from sqlalchemy import Engine

from benchmarks.figures import spread
from benchmarks.machine import machine
from benchmarks.report import table
from config import ledger, limits, settling
from config.database import create_tables, open_database
from core.accounts import path_of
from core.limits import Amounts, Asking, Limit

RESULTS = Path(__file__).parent / "results" / "limits.json"
BATCH, BATCHES, ROUNDS, USERS = 200, 20, 7, 1_000
PLENTY = 10**17
LIMITS = (
    *(Limit(account, "usd", "day", PLENTY) for account in ("/", "/acme", "/*/project:*", "/*/user:*", "/*/key:*")),
    Limit("/acme", "requests", "minute", PLENTY),
)
USAGE, ANSWER = b"u" * 600, b"a" * 900


def main() -> int:
    """Measure, print and write down."""
    chance, rounds = (
        random.Random(1),
        {"without limits": list[float](), "with six limits on five levels": list[float]()},
    )
    with tempfile.TemporaryDirectory() as folder:
        engines = [open_database(f"sqlite:///{folder}/{number}.db") for number in range(len(rounds))]
        for engine in engines:
            create_tables(engine)
        with engines[1].begin() as db:
            limits.change(db, limits.Edit(put=LIMITS), "benchmark", time.time_ns() // 1_000)
        for turn in range(ROUNDS + 1):
            for (name, values), engine in zip(rounds.items(), engines, strict=True):
                took = _round(engine, chance)
                if turn:  # the first one warms up
                    rounds[name] = [*values, took]
    figures = {name: spread(values) for name, values in rounds.items()}
    without, with_limits = (one["median"] for one in figures.values())
    report = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine(),
        "load_average": round(os.getloadavg()[0], 2), "requests_a_round": BATCH * BATCHES, "requests_a_batch": BATCH,
        "limits": len(LIMITS), "users": USERS, "cpu_ms_a_request": figures,
        "more_cpu_ms_a_request": with_limits - without, "ratio": with_limits / without,
    }  # fmt: skip
    RESULTS.write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2) + b"\n")
    made = table("CPU ms a request, its four transactions on SQLite", ("", "median", "least", "most"), "lrrr")
    for name, one in figures.items():
        made.add_row(name, *(f"{one[key]:.3f}" for key in ("median", "least", "most")))
    Console().print(made)
    Console().print(f"Limits cost {with_limits - without:.3f} ms more a request ({with_limits / without:.2f} ×).")
    return 0


def _round(engine: Engine, chance: random.Random) -> float:
    """CPU milliseconds a request."""
    began = time.process_time()
    for _ in range(BATCHES):
        _batch(engine, chance)
    return (time.process_time() - began) / (BATCH * BATCHES) * 1_000


def _batch(engine: Engine, chance: random.Random) -> None:
    now, ids = time.time_ns() // 1_000, [str(uuid.uuid4()) for _ in range(BATCH)]
    askings = [
        Asking(
            path_of("acme", "search", f"user-{chance.randrange(USERS)}", f"key-{chance.randrange(USERS)}"), "support",
            ("openai/gpt-5-mini",), Amounts(1_000, 500),
        )
        for _ in ids
    ]  # fmt: skip
    admissions = [
        ledger.Admission(one, b"h" * 32, "acme", 1_000, None, now, b"plan", asking)
        for one, asking in zip(ids, askings, strict=True)
    ]
    ended = ledger.EndedAttempt(1, USAGE, 70, "priced")
    with engine.begin() as db:
        admitted = ledger.admit(db, admissions)
    with engine.begin() as db:
        ledger.start(db, [ledger.Start(one, "bench", now, None, 3, True) for one in ids])
    with engine.begin() as db:
        ledger.end(db, [ledger.End(one, "bench", now, ended, ANSWER) for one in ids])
    with engine.begin() as db:
        settled = settling.settle(
            db, [settling.Settlement(one, 1, 70, 1_000, 300, "openai/gpt-5-mini", now) for one in ids]
        )
    if not all(settled) or any(one.kind != "new" for one in admitted):
        raise RuntimeError("The ledger did not admit and settle every request.")


if __name__ == "__main__":
    sys.exit(main())
