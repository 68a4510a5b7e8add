"""What is kept of prompts and answers: rows of a table of their own, which forgets them after 30 days."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from hashlib import sha256
from typing import Any, Literal

from schemas.codec import Event
from sinks.rows import POSITION, Column, Values

#: What becomes of them: stored, only their hash, or nothing.
Keep = Literal["full", "hash", "off"]

TABLE = "bodies"
#: The time to live that `sinks/migrations/0004_bodies.sql` gives them.
KEEP_DAYS = 30
COLUMNS = (
    *POSITION,
    Column("logged_at", "DateTime64(3, 'UTC')", None),
    Column("request_id", "String", "request_id"),
    Column("tenant", "LowCardinality(String)", "tenant"),
    Column("user", "String", "user"),
    Column("kind", "LowCardinality(String)", None),
    Column("body", "String", None),
    Column("body_bytes", "Int64", None),
    Column("sha256", "String", None),
)

#: The records that have a body: what it is called, and the field that holds it.
BODIES = {"LlmRequest": ("request", "messages"), "LlmResponse": ("response", "output")}

#: The last millisecond that a DateTime can count to.
_LAST_MS = (1 << 32) * 1_000 - 1


def as_json(value: Any) -> bytes:
    """Messages or parts of an answer as compact JSON in UTF-8, without the fields that are null; bytes become base64.

    Equal bodies have equal JSON, so that `sha256` finds a text again.
    """
    return json.dumps(_plain(value), ensure_ascii=False, separators=(",", ":")).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def bodies_of(
    record: str,
    events: Sequence[Event],
    topic: str,
    partition: int,
    offsets: Values,
    ce_ids: Values,
    logged_ms: Sequence[int],
    keep: Keep,
) -> list[Values]:
    """The bodies of these events as one list of values a column of `COLUMNS`; `logged_ms` is Kafka's time of each record."""
    kind, field = BODIES[record]
    count = len(events)
    texts = [as_json(event[field]) for event in events]
    return [
        [topic] * count,
        [partition] * count,
        offsets,
        ce_ids,
        [min(max(0, ms), _LAST_MS) for ms in logged_ms],
        *([event[name] or "" for event in events] for name in ("request_id", "tenant", "user")),
        [kind] * count,
        texts if keep == "full" else [""] * count,
        [len(text) for text in texts],
        [sha256(text).hexdigest() for text in texts],
    ]
