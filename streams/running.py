"""A stage at work: its Faust app, its lane, and what can be seen of it from outside."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from agents.outgoing import Encoder
from core.outcome import Outcome, Record
from streams.app import build_app
from streams.lane import Lane
from streams.pipeline import Stage
from streams.publish import Publisher
from streams.tools import Tools

LOG = logging.getLogger("millstream.worker")
WATCH_SECONDS = 10.0


class Running:
    """One stage at work; `stop` ends the worker, with the reason why the stage cannot go on."""

    def __init__(self, stage: Stage, tools: Tools, stop: Callable[[str], None]) -> None:
        self.name = stage.group.removeprefix("millstream-")
        prefix = tools.settings.topic_prefix
        self.app = build_app(prefix + stage.group, tools.settings)
        publisher = self.publisher = Publisher(self.app, prefix, tools.reply_topics)
        largest = tools.settings.max_record_bytes
        encoder = Encoder(tools.codec, self.name.split("-")[0], tools.clock, largest)

        async def publish(record: Record, outcome: Outcome) -> None:
            await publisher.publish(encoder.events_of(record, outcome))
            tools.metrics.record_done(self.name, outcome)

        self.lane = Lane(
            self.name, stage.handler(tools, publisher.publish), publish, stop, tools.settings.lane_in_flight
        )
        topic = self.app.topic(
            *(topic.on(prefix) for topic in stage.topics),
            key_type=bytes,
            value_type=bytes,
            key_serializer="raw",
            value_serializer="raw",
        )
        self.app.agent(topic, name=self.name)(self.lane.consume)
        self.app.on_partitions_assigned.connect(self._assigned)
        tools.metrics.add_stage(
            self.name,
            lambda: self.app.consumer.tracker.in_flight if self.app.started else 0,
            lambda: self.app.consumer.tracker.oldest_age if self.app.started else 0.0,
        )

    def reads_partitions(self) -> bool:
        """Whether the group has given partitions to this member."""
        return self.app.started and bool(self.app.consumer.assignment())

    def problem(self) -> str | None:
        """Why the stage cannot go on, None while it can."""
        if self.app.crashed:
            return f"{self.name} lost its connection to Kafka ({type(self.app.crash_reason).__name__})."
        if self.app.started and self.app.producer.ended:
            return f"The Kafka producer of {self.name} has ended; what is not sent is sent after a restart."
        return None

    def _assigned(self, app: Any, assigned: set[Any], **_: Any) -> None:
        LOG.info("%s reads %d partitions.", self.name, len(assigned))


async def watch(running: Sequence[Running], stop: Callable[[str], None]) -> None:
    """Stop the worker when a stage cannot go on, and say how long the oldest record has been at work."""
    said = time.monotonic()
    while True:
        await asyncio.sleep(0.5)
        for one in running:
            if (why := one.problem()) is not None:
                stop(why)
        if time.monotonic() - said >= WATCH_SECONDS:
            said = time.monotonic()
            for one in running:
                tracker = one.app.consumer.tracker
                if tracker.in_flight:
                    LOG.info(
                        "%s: %d in flight, the oldest for %.1f s.", one.name, tracker.in_flight, tracker.oldest_age
                    )
