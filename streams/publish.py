"""Put events on the broker and know that they are there."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from aiokafka.errors import KafkaError

from core.outcome import Outgoing
from streams.reply_topics import ReplyTopics

LOG = logging.getLogger(__name__)
PAUSE_SECONDS = 1.0


class Publisher:
    """Sends events through Faust's producer; `prefix` goes before the name of every topic that is not a caller's own."""

    def __init__(self, app: Any, prefix: str, reply_topics: ReplyTopics) -> None:
        self._app = app
        self._prefix = prefix
        self._reply_topics = reply_topics

    async def publish(self, events: tuple[Outgoing, ...]) -> None:
        """Return when the broker has confirmed every event; while it is away, wait and send again.

        Sending again may write an event twice; both have the same `ce_id`, by which readers tell.
        """
        while events:
            results = await asyncio.gather(*(self._send(event) for event in events), return_exceptions=True)
            failed = [result for result in results if isinstance(result, BaseException)]
            if not failed:
                return
            for error in failed:
                if not isinstance(error, Exception):
                    raise error
            LOG.warning("%d events could not be sent (%s); sending again.", len(failed), type(failed[0]).__name__)
            pairs = zip(events, results, strict=True)
            events = tuple(e for e, result in pairs if isinstance(result, BaseException) and not _hopeless(e, result))
            await asyncio.sleep(PAUSE_SECONDS)

    async def _send(self, event: Outgoing) -> None:
        topic = event.topic if event.callers else self._prefix + event.topic
        if event.callers and not await self._can_be_written(event):
            LOG.warning("The reply topic %s is gone; its answer is on the response topic only.", topic)
            return
        # The first await reaches the producer's buffer, the second one the broker.
        sent = await self._app.producer.send(topic, event.key, event.value, event.partition, None, event.headers)
        await sent

    async def _can_be_written(self, event: Outgoing) -> bool:
        found = await self._reply_topics.partitions(event.topic)
        return found is not None and (event.partition is None or event.partition < found)


def _hopeless(event: Outgoing, error: BaseException) -> bool:
    """Whether a copy of an answer can never be written where its caller wants it, being too large for the topic, say."""
    if not event.callers or not isinstance(error, KafkaError) or error.retriable:
        return False
    LOG.warning(
        "The reply topic %s refuses an answer (%s); it is on the response topic only.",
        event.topic,
        type(error).__name__,
    )
    return True
