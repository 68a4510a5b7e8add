"""A worker that can do nothing more ends, so that whatever started it starts another one."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from cli.running import Running
from local.processes import Child
from tests.stack.asking import eventually

#: Its Kafka clients never stop once they are asked to.
HANGS = """
import asyncio, sys
import faust
from cli.main import main

async def stop(self):
    await asyncio.Event().wait()

faust.App.stop = stop
sys.exit(main(["worker", "meter"]))
"""


def test_kafka_clients_that_hang_do_not_keep_a_worker_from_ending(pipeline: Running, tmp_path: Path) -> None:
    """Asked to end, it ends with status 1, and nothing of it is left that could join its group again."""
    log = tmp_path / "meter.log"
    worker = Child([sys.executable, "-c", HANGS], pipeline.environment, log_path=log, name="meter")
    try:
        assert eventually(lambda: "partitions." in worker.log_tail(50), 60)
        worker.signal(signal.SIGTERM)
        assert eventually(lambda: not worker.running, 60)
        assert worker.returncode == 1
        assert "did not stop within" in worker.log_tail(50)
    finally:
        worker.kill()
