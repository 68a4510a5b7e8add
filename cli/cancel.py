"""`millstream cancel`: stop a request's call."""

from __future__ import annotations

import argparse
import getpass
import sys
import time
import uuid

from confluent_kafka import Producer

from cli import kafka
from cli.errors import CommandError
from cli.stackfile import stack_settings
from config.kafka import librdkafka
from config.schema_registry import open_codec
from config.settings import Settings
from core.admission import UUID
from core.topics import CONTROL
from schemas.cloudevents import headers, trace_of
from schemas.events import LlmControl


def describe(parser: argparse.ArgumentParser) -> None:
    """Which request, and whose it has to be."""
    parser.add_argument("request_id", help="the id of the request")
    parser.add_argument("--tenant", help="leave the request alone unless it is this tenant's")


def run(arguments: argparse.Namespace) -> int:
    """Tell all workers; 0 when the broker has it."""
    if not UUID.fullmatch(arguments.request_id):
        raise CommandError(f"The request id is {arguments.request_id!r}; it must be a UUID, as `send` prints it.")
    tell(stack_settings(), "cancel", arguments.request_id, arguments.tenant)
    print(f"All workers are told to cancel {arguments.request_id}.", file=sys.stderr)
    return 0


def tell(settings: Settings, kind: str, subject: str, tenant: str | None = None) -> None:
    """Put a word to all workers on the control topic; `CommandError` when the broker does not take it."""
    kafka.need_topics(settings, [CONTROL])
    said = LlmControl(
        control_id=str(uuid.uuid4()), kind=kind, subject=subject, tenant=tenant, by=_who(), at=time.time_ns() // 1_000
    )
    failed: list[str] = []
    producer = Producer({**librdkafka(settings), "enable.idempotence": True}, logger=kafka.QUIET)
    producer.produce(
        CONTROL.on(settings.topic_prefix), open_codec(settings).encode(CONTROL.record, said), subject.encode(),
        headers=headers(CONTROL.record, said["control_id"], kind, said["at"], trace_of([], subject)),
        on_delivery=lambda error, _: failed.append(error.str()) if error is not None else None,
    )  # fmt: skip
    if producer.flush(30) or failed:
        raise CommandError(f"The broker did not take it: {failed[0] if failed else 'no answer within 30 s'}.")


def _who() -> str | None:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return None
