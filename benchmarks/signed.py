"""What a signature costs a request: `python -m benchmarks.signed`

The admit stage as a worker runs it, on SQLite, 200 requests at once: with whoever writes the topic trusted, and with every request
signed, by 100 keys in turn. Rounds of both alternate. Prints a table, writes `benchmarks/results/signed.json`.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path

import orjson
from rich.console import Console
from sqlalchemy import Engine

from agents.admit import Admit, AdmitRules
from agents.callers import AsTheySay, Callers, SignedCallers
from agents.ledgers import Ledgers
from agents.planning import Planner
from benchmarks.figures import spread
from benchmarks.machine import machine
from benchmarks.report import table
from cli.lines import request_of
from config.credentials import Change
from config.database import create_tables, open_database
from config.issued_keys import NewKey, issue, issued_keys
from config.key_encryption import encryption_keys, new_local_key
from config.registry import from_environment
from config.settings import Settings
from config.tasks import Tasks
from config.transactions import Transactions
from core.outcome import Emit, Record
from schemas.cloudevents import headers, trace_of
from schemas.codec import Codec
from schemas.signing import signed_headers

RESULTS = Path(__file__).parent / "results" / "signed.json"
BATCH, BATCHES, ROUNDS, KEYS = 200, 20, 7, 100
TOPIC = "llm.requests.v1"


def main() -> int:
    """Measure, print and write down."""
    rounds = {"trusted topic": list[float](), "signed requests": list[float]()}
    with tempfile.TemporaryDirectory() as folder:
        engines = [open_database(f"sqlite:///{folder}/{number}.db") for number in range(len(rounds))]
        for engine in engines:
            create_tables(engine)
        keys, signed = _issued(engines[1])
        believers: tuple[Callers, ...] = AsTheySay(), signed
        for turn in range(ROUNDS + 1):
            for values, engine, callers in zip(rounds.values(), engines, believers, strict=True):
                took = asyncio.run(_round(engine, callers, keys))
                if turn:  # the first one warms up
                    values.append(took)
    figures = {name: spread(values) for name, values in rounds.items()}
    trusted, believed = (one["median"] for one in figures.values())
    report = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine(),
        "load_average": round(os.getloadavg()[0], 2), "requests_a_round": BATCH * BATCHES, "requests_at_once": BATCH,
        "keys": KEYS, "cpu_ms_a_request": figures, "more_cpu_ms_a_request": believed - trusted, "ratio": believed / trusted,
    }  # fmt: skip
    RESULTS.write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2) + b"\n")
    made = table("CPU ms a request, the admit stage on SQLite", ("", "median", "least", "most"), "lrrr")
    for name, one in figures.items():
        made.add_row(name, *(f"{one[key]:.3f}" for key in ("median", "least", "most")))
    Console().print(made)
    Console().print(f"A signature costs {believed - trusted:.3f} ms more a request ({believed / trusted:.2f} ×).")
    return 0


def _issued(engine: Engine) -> tuple[list[str], SignedCallers]:
    """Keys as their holders have them, and who believes them."""
    at_hand = encryption_keys("env:KEY", {"KEY": new_local_key("benchmark")})
    with engine.begin() as db:
        keys = [issue(db, at_hand, NewKey("acme", f"user-{n}"), Change("benchmark", 1))[1] for n in range(KEYS)]
    callers = SignedCallers(at_hand, _now)
    callers.load(issued_keys(engine))
    return keys, callers


async def _round(engine: Engine, callers: Callers, keys: Sequence[str]) -> float:
    """CPU milliseconds a request; making and signing the records is not counted."""
    settings, codec = Settings(), Codec()
    registry, tasks = from_environment(settings), Tasks.load(settings)
    transactions = Transactions(engine, most=BATCH, linger=0.001)

    async def no_partitions(_: str) -> None:
        return None

    stage = Admit(
        codec, Ledgers(transactions), lambda: tasks, Planner(lambda: registry, dict, settings.models, 4_096),
        AdmitRules(settings.max_request_bytes, (), 60), no_partitions, _now, callers,
    )  # fmt: skip
    took = 0.0
    for _ in range(BATCHES):
        records = [_record(codec, key) for key, _ in zip(cycle(keys), range(BATCH), strict=False)]
        began = time.process_time()
        outcomes = await asyncio.gather(*map(stage, records))
        took += time.process_time() - began
        if any(not isinstance(one, Emit) or one.events[0].topic == "llm.responses.v1" for one in outcomes):
            raise RuntimeError("The stage did not admit every request.")
    await transactions.close()
    return took / (BATCH * BATCHES) * 1_000


def _record(codec: Codec, key: str) -> Record:
    """A signed request; where nobody asks for a signature, nobody reads it."""
    request_id = str(uuid.uuid4())
    asked = request_of({"request_id": request_id, "prompt": "What is it? " * 40, "model": "echo/echo"}, {}, "A request")
    value = codec.encode("LlmRequest", asked)
    told = headers("LlmRequest", request_id, "benchmark", asked["created_at"], trace_of([], request_id))
    told += signed_headers(key, value, int(time.time()))
    return Record(TOPIC, 0, 0, request_id.encode(), value, told, _now())


def _now() -> int:
    return time.time_ns() // 1_000


if __name__ == "__main__":
    sys.exit(main())
