"""A worker that cannot go back to its committed offsets after a rebalance ends, and would read nothing for ever otherwise."""

from __future__ import annotations

import sys
from pathlib import Path

from cli.running import Running
from local.processes import Child
from tests.stack.asking import eventually

#: A worker whose broker never tells the committed offsets; it gives up after 6.3 seconds instead of 36.
WORKER = """
import asyncio, sys
from aiokafka import AIOKafkaConsumer
from cli.main import main
from streams import running

build = running.build_app

def impatient(*arguments):
    app = build(*arguments)
    app.conf.broker_request_timeout = 7.0
    return app

async def unanswered(self, *partitions):
    await asyncio.Event().wait()

running.build_app = impatient
AIOKafkaConsumer.seek_to_committed = unanswered
sys.exit(main(["worker", "meter"]))
"""


def test_a_worker_that_cannot_seek_after_a_rebalance_ends(pipeline: Running, tmp_path: Path) -> None:
    """The worker stops with status 1 and says why, so that whatever started it starts another one."""
    environment = {**pipeline.environment, "MILLSTREAM_SESSION_TIMEOUT_SECONDS": "6"}
    worker = Child([sys.executable, "-c", WORKER], environment, log_path=tmp_path / "meter.log", name="meter")
    try:
        assert eventually(lambda: not worker.running, 60), worker.log_tail()
        assert worker.returncode == 1
        assert "meter lost its connection to Kafka (TimeoutError)" in worker.log_tail(50)
    finally:
        worker.kill()
