"""Which topics of callers exist, so that an answer is never sent where nothing can be written."""

from __future__ import annotations

import asyncio
import logging
import time

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from config.kafka import aiokafka
from config.settings import Settings

LOG = logging.getLogger(__name__)
#: How long an answer of the broker is believed, in seconds.
BELIEVED = 60.0
PAUSE = 1.0


class ReplyTopics:
    """Asks the broker for topics by their names there, and remembers what it said for a minute."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._known: dict[str, tuple[float, int | None]] = {}
        self._client: AIOKafkaAdminClient | None = None
        self._asking = asyncio.Lock()

    async def partitions(self, topic: str) -> int | None:
        """How many partitions the topic has; None when it does not exist or is not to be seen. Waits while Kafka is away."""
        async with self._asking:
            while (found := self._known.get(topic)) is None or found[0] < time.monotonic():
                try:
                    self._known[topic] = time.monotonic() + BELIEVED, await self._ask(topic)
                except (KafkaError, OSError) as problem:
                    LOG.warning(
                        "The topic %s could not be looked up (%s); trying again.", topic, type(problem).__name__
                    )
                    await self.close()
                    await asyncio.sleep(PAUSE)
        return found[1]

    async def close(self) -> None:
        """Let go of the broker."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _ask(self, topic: str) -> int | None:
        if self._client is None:
            client = AIOKafkaAdminClient(**aiokafka(self._settings))
            try:
                await client.start()
            except BaseException:
                await client.close()
                raise
            self._client = client
        (described,) = await self._client.describe_topics([topic])
        return len(described["partitions"]) if described["error_code"] == 0 else None
