"""A Kafka producer that has given up ends its worker, which would hold its records for ever otherwise."""

from __future__ import annotations

import sys
from pathlib import Path

from cli.running import Running
from local.processes import Child
from tests.stack.asking import eventually

#: A worker whose producer meets an error that aiokafka does not know, three seconds after its start.
WORKER = """
import asyncio, sys
from aiokafka.producer.sender import Sender
from cli.main import main

routine = Sender._sender_routine

async def fails(self):
    async with asyncio.timeout(3):
        await routine(self)
    raise RuntimeError("no such error")

Sender._sender_routine = fails
sys.exit(main(["worker", "meter"]))
"""


def test_a_producer_that_gave_up_ends_its_worker(pipeline: Running, tmp_path: Path) -> None:
    """The worker stops with status 1 and says why, so that whatever started it starts another one."""
    worker = Child([sys.executable, "-c", WORKER], pipeline.environment, log_path=tmp_path / "meter.log", name="meter")
    try:
        assert eventually(lambda: not worker.running, 60)
        assert worker.returncode == 1
        assert "The Kafka producer of meter has ended" in worker.log_tail(50)
    finally:
        worker.kill()
