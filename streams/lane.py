"""One stage's way through its records: bounded work in flight, an acknowledgement after the broker has what follows, a drain."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from core.outcome import Drop, Fail, Outcome, Record, Reject

LOG = logging.getLogger(__name__)
#: The timestamp type of a record that has the broker's time (https://kafka.apache.org/documentation/#recordbatch).
LOG_APPEND_TIME = 1

Handler = Callable[[Record], Awaitable[Outcome]]
Publish = Callable[[Record, Outcome], Awaitable[None]]


class Lane:
    """Runs `handler` for each record of a stream as a task of its own, at most `most` at once.

    A full lane takes nothing more from its stream, which stops the fetching: that is the back-pressure. `publish` puts what
    follows from a record on the broker; only then is the record finished. `stop` is called when a handler says `Fail`.
    """

    def __init__(self, name: str, handler: Handler, publish: Publish, stop: Callable[[str], None], most: int) -> None:
        self.name = name
        self._handler = handler
        self._publish = publish
        self._stop = stop
        self._room = asyncio.Semaphore(most)
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = True

    async def consume(self, stream: Any) -> None:
        """Read a Faust stream until it ends; this is the body of the lane's agent."""
        consumer = stream.app.consumer
        async for event in stream.noack().events():
            await self._room.acquire()
            if not self._open:
                # The agent must not end before its app does: Faust would start it again.
                await asyncio.Event().wait()
            task = asyncio.create_task(self._work(event.message, consumer.finish))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def drain(self, seconds: float) -> int:
        """Take nothing new, let what is in flight end within `seconds`, cancel the rest; how many were cancelled.

        A cancelled record is not acknowledged: it is delivered again to whoever reads the partition next.
        """
        self._open = False
        tasks = set(self._tasks)
        if not tasks:
            return 0
        _, late = await asyncio.wait(tasks, timeout=seconds)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        return len(late)

    async def _work(self, message: Any, finish: Callable[[Any], None]) -> None:
        try:
            record = Record(
                message.topic, message.partition, message.offset, message.key, message.value,
                list(message.headers or ()), int(message.timestamp * 1_000_000), message.timestamp_type == LOG_APPEND_TIME,
            )  # fmt: skip
            outcome = await self._outcome(record)
            if isinstance(outcome, Fail):
                self._stop(outcome.message)
                return
            if isinstance(outcome, Drop):
                LOG.info("%s drops %s[%d]@%d: %s", self.name, *_place(record), outcome.reason)
            await self._publish(record, outcome)
            finish(message)
        finally:
            self._room.release()

    async def _outcome(self, record: Record) -> Outcome:
        try:
            return await self._handler(record)
        except Exception:
            LOG.exception("%s failed on %s[%d]@%d; it goes to the dead letters.", self.name, *_place(record))
            return Reject(
                "pipeline_internal", f"Stage {self.name} failed on the record; its log at this time names the cause."
            )


def _place(record: Record) -> tuple[str, int, int]:
    return record.topic, record.partition, record.offset
