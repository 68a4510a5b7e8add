"""What is said to all workers: each process follows the control topic from where it ends when the process starts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from agents.cancel import Cancellations
from agents.outgoing import decode
from config.kafka import aiokafka
from config.settings import Settings
from core.topics import CONTROL
from schemas.codec import Codec, Undecodable

LOG = logging.getLogger(__name__)
PAUSE_SECONDS = 1.0


class Control:
    """Hands `cancel` to the cancellations and to `keep`, which may take its time, and `refresh` to `refresh`; everything else is
    logged and passed over.
    """

    def __init__(
        self, settings: Settings, codec: Codec, cancellations: Cancellations,
        keep: Callable[[str, str | None, int], Coroutine[Any, Any, None]], refresh: Callable[[], Awaitable[Any]],
    ) -> None:  # fmt: skip
        self._settings = settings
        self._topic = CONTROL.on(settings.topic_prefix)
        self._codec = codec
        self._cancellations = cancellations
        self._keep = keep
        self._keeping: set[asyncio.Task[None]] = set()
        self._refresh = refresh
        self._next: dict[TopicPartition, int] = {}

    async def run(self) -> None:
        """Follow the topic until cancelled; while Kafka is away, try again, and then go on where it was left."""
        while True:
            # No group, so that every process reads every record.
            consumer = AIOKafkaConsumer(
                self._topic, **aiokafka(self._settings), group_id=None, auto_offset_reset="latest"
            )
            try:
                await consumer.start()
                await self._follow(consumer)
            except Exception as problem:
                LOG.warning("The control topic cannot be read (%s); trying again.", type(problem).__name__)
            finally:
                await consumer.stop()
            await asyncio.sleep(PAUSE_SECONDS)

    async def _follow(self, consumer: AIOKafkaConsumer) -> None:
        for partition, end in (await consumer.end_offsets(consumer.assignment())).items():
            consumer.seek(partition, self._next.setdefault(partition, end))
        # What was said before the first end was known is not read.
        await self._refresh()
        async for record in consumer:
            self._next[TopicPartition(record.topic, record.partition)] = record.offset + 1
            await self._take(record.value)

    async def _take(self, value: bytes | None) -> None:
        try:
            said = await decode(self._codec, CONTROL.record, value)
        except Undecodable as why:
            LOG.warning("A record on the control topic is passed over: %s", why)
            return
        match said["kind"]:
            case "cancel":
                task = asyncio.create_task(self._keep(said["subject"], said["tenant"], said["at"]))
                self._keeping.add(task)
                task.add_done_callback(self._keeping.discard)
                self._cancellations.cancel(said["subject"], said["tenant"])
            case "refresh":
                await self._refresh()
            case other:
                LOG.warning("This version knows no control of kind %r; it is passed over.", other)
