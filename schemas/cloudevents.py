"""The headers of every event: CloudEvents in Kafka's binary mode, and the W3C trace context.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md#32-binary-content-mode
https://www.w3.org/TR/trace-context/#traceparent-header
"""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime

CE_ID = "ce_id"
TRACEPARENT = "traceparent"
_TRACEPARENT = re.compile(rb"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def headers(record: str, event_id: str, source: str, time_us: int, traceparent: bytes) -> list[tuple[str, bytes]]:
    """The headers of one event: `record` is its Avro type, `source` the stage, `time_us` microseconds since 1970."""
    return [
        ("ce_specversion", b"1.0"),
        (CE_ID, event_id.encode()),
        ("ce_type", f"millstream.v1.{record}".encode()),
        ("ce_source", f"/millstream/{source}".encode()),
        ("ce_time", rfc3339(time_us).encode()),
        ("content-type", b"application/avro"),
        (TRACEPARENT, traceparent),
    ]


def trace_of(incoming: list[tuple[str, bytes]], request_id: str) -> bytes:
    """The trace that a record belongs to: the one it came with, else one made from the request id, so that it is stable."""
    for name, value in incoming:
        if name == TRACEPARENT and value and _TRACEPARENT.fullmatch(value):
            return value
    trace = uuid.uuid5(uuid.NAMESPACE_URL, request_id).hex
    return f"00-{trace}-{trace[:16]}-01".encode()


def rfc3339(time_us: int) -> str:
    """Microseconds since 1970 as text, such as 2026-11-21T10:58:00.123456Z."""
    return (
        datetime.fromtimestamp(time_us // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{time_us % 1_000_000:06d}Z"
    )
