"""Tell all workers to read the registry again, after it was changed."""

from __future__ import annotations

import time
import uuid

from confluent_kafka import KafkaException, Producer

from cli import kafka
from cli.errors import CommandError
from config.kafka import librdkafka
from config.schema_registry import open_codec
from config.settings import Settings, SettingsError
from core.topics import CONTROL
from schemas.cloudevents import headers, trace_of
from schemas.events import LlmControl

SUBJECT = "registry"
FLUSH_SECONDS = 10.0


def publish_refresh(settings: Settings, by: str, version: int) -> str | None:
    """Publish the event; None when the broker has it, else why it does not."""
    now = time.time_ns() // 1_000
    control_id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{SUBJECT}/{version}/{now}"))
    event = LlmControl(control_id=control_id, kind="refresh", subject=SUBJECT, tenant=None, by=by, at=now)
    refused: list[str] = []
    try:
        kafka.need_topics(settings, [CONTROL])
        producer = Producer({**librdkafka(settings), "enable.idempotence": True}, logger=kafka.QUIET)
        producer.produce(
            CONTROL.on(settings.topic_prefix), open_codec(settings).encode(CONTROL.record, event), SUBJECT.encode(),
            headers=headers(CONTROL.record, control_id, "cli", now, trace_of([], control_id)),
            on_delivery=lambda error, _: refused.append(error.str()) if error is not None else None,
        )  # fmt: skip
        left = producer.flush(FLUSH_SECONDS)
    except (CommandError, SettingsError) as away:
        return str(away)
    except KafkaException as error:
        return f"Kafka at {settings.kafka_bootstrap} failed ({error.args[0].str()})."
    if refused or left:
        return f"The broker did not take the event ({refused[0] if refused else 'no answer'})."
    return None
