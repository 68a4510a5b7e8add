"""Faust's Kafka transport with our offset tracker, an idempotent producer and nothing that acknowledges by itself.

Pinned to Faust 0.15.3: `tests/unit/test_faust_pin.py` fails when the methods that are replaced here change upstream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import uvloop
from faust.sensors.monitor import Monitor
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, Message

from streams.tracker import OffsetTracker

#: Of the time that Faust gives to going back to the committed offsets (`broker_request_timeout`), what is used.
SEEK_SHARE = 0.9


class Consumer(driver.Consumer):
    """A consumer that commits the longest run of records which their stage has finished.

    Faust acknowledges a record by itself when it skips it during a rebalance or cannot decode it. Here that counts for
    nothing: only `finish` does.
    """

    def __init__(self, transport: Any, callback: Any, *args: Any, **options: Any) -> None:
        self.tracker = OffsetTracker()

        async def deliver(message: Message) -> None:
            self.tracker.deliver(message.tp, message.offset)
            await callback(message)

        super().__init__(transport, deliver, *args, **options)

    def _new_consumer_thread(self) -> driver.AIOKafkaConsumerThread:
        # Faust gives its consumer a thread with a plain asyncio loop, whatever loop the worker runs on.
        thread_loop = uvloop.new_event_loop()
        return driver.AIOKafkaConsumerThread(self, loop=self.loop, beacon=self.beacon, thread_loop=thread_loop)

    def finish(self, message: Message) -> None:
        """All that the record caused is on the broker: its offset may be committed."""
        message.acked = True
        self._unacked_messages.discard(message)
        self.tracker.finish(message.tp, message.offset)

    def ack(self, message: Message) -> bool:
        message.acked = True
        self._unacked_messages.discard(message)
        return False

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        await self.commit()
        self.tracker.forget(revoked)
        await super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        self.tracker.forget(assigned)
        await super().on_partitions_assigned(assigned, generation_id)

    async def perform_seek(self) -> None:
        """Go back to what is committed, after a rebalance in which fetched records were dropped.

        aiokafka's `seek_to_committed` leaves a partition of which nothing is committed where it is, which is behind the records
        that were dropped. They would be lost as soon as a later one is committed.

        TimeoutError when the broker does not answer in time, before Faust's own limit: Faust takes its limit for a stop of its
        recovery, ends that, and never reads again, although the worker goes on.
        """
        async with asyncio.timeout(self.app.conf.broker_request_timeout * SEEK_SHARE):
            await super().perform_seek()
            if uncommitted := {tp for tp in self.assignment() if not self._committed_offset[tp]}:
                await self.seek_wait(await self.earliest_offsets(*uncommitted))

    def _new_offset(self, tp: TP) -> int | None:
        return self.tracker.committable(tp)

    def _filter_tps_with_pending_acks(self, topics: Iterable[Any] | None = None) -> Iterator[TP]:
        for tp in self.tracker.partitions():
            if topics is None or tp in topics or tp.topic in topics:  # type: ignore[attr-defined]
                yield tp  # type: ignore[misc]

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Offset gaps need no bookkeeping: the tracker follows delivered records, not numbers."""

    async def verify_all_partitions_active(self) -> None:
        """Faust's livelock check takes a long provider call for a stuck stream; the lane's own watchdog looks instead."""


class Producer(driver.Producer):
    """A producer that loses and doubles nothing on its own retries (`acks=all`, idempotent)."""

    def _settings_extra(self) -> Mapping[str, Any]:
        return {"acks": "all", "enable_idempotence": True}

    @property
    def ended(self) -> bool:
        """Whether it will never send again: aiokafka gives its sender up after an error that it does not know or cannot mend.

        https://github.com/aio-libs/aiokafka/blob/master/aiokafka/producer/sender.py
        """
        task = self._producer._sender.sender_task if self._producer is not None else None
        return task is not None and task.done()


class Transport(driver.Transport):
    """The transport that a Millstream worker gives to Faust."""

    Consumer = Consumer
    Producer = Producer


class QuietMonitor(Monitor):
    """Faust's monitor without its work on every record, which nobody reads here."""

    def on_message_in(self, *_: Any) -> None: ...
    def on_stream_event_in(self, *_: Any) -> dict[str, Any] | None: ...
    def on_stream_event_out(self, *_: Any) -> None: ...
    def on_message_out(self, *_: Any) -> None: ...
    def on_send_initiated(self, *_: Any, **__: Any) -> None: ...
    def on_send_completed(self, *_: Any, **__: Any) -> None: ...
    def track_tp_end_offset(self, *_: Any) -> None: ...
