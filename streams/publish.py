"""Put events on the broker and know that they are there."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from core.outcome import Outgoing

LOG = logging.getLogger(__name__)
PAUSE_SECONDS = 1.0


class Publisher:
    """Sends events through Faust's producer; `prefix` goes before every topic name."""

    def __init__(self, app: Any, prefix: str) -> None:
        self._app = app
        self._prefix = prefix

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
            events = tuple(event for event, result in pairs if isinstance(result, BaseException))
            await asyncio.sleep(PAUSE_SECONDS)

    async def _send(self, event: Outgoing) -> None:
        # The first await reaches the producer's buffer, the second one the broker.
        sent = await self._app.producer.send(
            self._prefix + event.topic, event.key, event.value, None, None, event.headers
        )
        await sent
