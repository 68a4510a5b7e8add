"""Send the records that the sink cannot store to the dead-letter topic."""

from __future__ import annotations

import time
import uuid
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from config.kafka import librdkafka
from config.settings import Settings
from core.replay import NOT_CARRIED, times_seen
from core.topics import DEAD_LETTERS
from schemas.cloudevents import headers, trace_of
from schemas.codec import Codec
from sinks.batch import Rejected
from sinks.partition import headers_of

DELIVERY_SECONDS = 30.0
STAGE = "sink"


class DeadLetters:
    """Produces `DeadLetter` events and waits until the broker has them."""

    def __init__(self, settings: Settings, codec: Codec) -> None:
        self._codec = codec
        self._topic = DEAD_LETTERS.on(settings.topic_prefix)
        self._config: dict[str, Any] = {
            **librdkafka(settings),
            "enable.idempotence": True,
            "delivery.timeout.ms": int(DELIVERY_SECONDS * 1000),
            "message.max.bytes": 100_000_000,
            "linger.ms": 0,
        }
        self._producer: Producer | None = None

    def send(self, rejected: list[Rejected]) -> None:
        """Return when the broker has a dead letter for each record; KafkaException when it has not.

        A record that was sent before has the same event id again, by which readers drop it.
        """
        if not rejected:
            return
        if too_large := self._delivered(rejected, with_value=True):
            self._delivered(too_large, with_value=False)

    def _delivered(self, rejected: list[Rejected], with_value: bool) -> list[Rejected]:
        """Send them all; those that were too large for the topic."""
        producer = self._producer = self._producer or Producer(self._config)
        too_large: list[Rejected] = []
        errors: list[KafkaError] = []
        for item in rejected:

            def done(error: KafkaError | None, _: Message, item: Rejected = item) -> None:
                if error is None:
                    return
                if with_value and error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
                    too_large.append(item)
                else:
                    errors.append(error)

            self._produce(producer, item, with_value, done)
        waiting = producer.flush(DELIVERY_SECONDS + 5)
        if waiting or errors:
            self._producer = None
            raise KafkaException(errors[0] if errors else KafkaError(KafkaError._MSG_TIMED_OUT))
        return too_large

    def _produce(self, producer: Producer, item: Rejected, with_value: bool, done: Any) -> None:
        message = item.message
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        identity = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{topic}:{partition}:{offset}"))
        now = time.time_ns() // 1000
        reason = item.reason if with_value else f"{item.reason} {NOT_CARRIED}"
        key = _bytes(message.key())
        original = headers_of(message)
        event = {
            "topic": topic,
            "partition": partition,
            "offset": offset,
            "key": key,
            "value": _bytes(message.value()) if with_value else None,
            "headers": [{"key": name, "value": value} for name, value in original],
            "timestamp": message.timestamp()[1] * 1000,
            "reason": "caller_undecodable",
            "message": reason,
            "stage": STAGE,
            "times_seen": times_seen(original) + 1,
            "failed_at": now,
        }
        trace = trace_of([(name, value or b"") for name, value in original], identity)
        producer.produce(
            self._topic,
            self._codec.encode("DeadLetter", event),
            # A record without a key still needs one here, or a repetition would land in another partition.
            key=identity.encode() if key is None else key,
            headers=headers("DeadLetter", identity, STAGE, now, trace),
            on_delivery=done,
        )


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value
