"""A worker for the tracker's tests: writes down each record it gets, ends fast ones at once and slow ones when told.

`python -m tests.stack.tracker_worker BOOTSTRAP TOPIC GROUP FILE ours|faust` — a record with the value `slow` ends when FILE.go
exists. When FILE.seek exists, it goes back to what is committed, as after a rebalance. With `faust` the stock transport acknowledges; everything else is the same.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import uvloop
from faust.transport.drivers.aiokafka import Transport as FaustTransport

from config.settings import Settings
from streams.app import build_app


async def work(bootstrap: str, topic: str, group: str, path: str, tracker: str) -> None:
    settings = Settings(
        kafka_bootstrap=bootstrap, session_timeout_seconds=6, rebalance_timeout_seconds=8, commit_interval_seconds=0.2
    )  # fmt: skip
    app = build_app(group, settings)
    if tracker == "faust":
        app.transport = FaustTransport(app.transport.url, app, app.loop)
    go, seen = Path(path + ".go"), Path(path)

    async def handle(event: Any) -> None:
        message = event.message
        with seen.open("a") as out:
            out.write(f"{message.offset}\n")
        while message.value == b"slow" and not go.exists():
            await asyncio.sleep(0.05)
        if tracker == "ours":
            app.consumer.finish(message)
        else:
            event.ack()

    tasks = set()

    async def consume(stream: Any) -> None:
        async for event in stream.noack().events():
            tasks.add(asyncio.create_task(handle(event)))

    app.agent(app.topic(topic, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw"))(consume)
    await app.start()
    while not Path(path + ".seek").exists():
        await asyncio.sleep(0.05)
    await app.consumer.perform_seek()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(work(*sys.argv[1:]))
