"""Events for tests, each a complete and valid one that a test changes where it matters."""

from __future__ import annotations

import uuid
from io import BytesIO
from typing import Any, cast

from fastavro import schemaless_writer

from schemas.codec import SINGLE_OBJECT_MAGIC, fingerprint_of, without_logical_types
from schemas.events import LlmCall, LlmRequest
from schemas.jsonform import from_json

#: 2026-11-21T10:58:00Z in microseconds since 1970.
NOON = 1_795_258_680_000_000


def request(prompt: str = "Why is the sky blue?", **changes: Any) -> LlmRequest:
    """A request with one user message."""
    event = from_json(
        "LlmRequest",
        {
            "request_id": str(uuid.uuid4()), "tenant": "acme", "user": "ana", "created_at": NOON,
            "model": "openai/gpt-5-mini",
            "messages": [{"role": "user", "content": [{"type": "text", "text": prompt}]}],
        },
    )  # fmt: skip
    return cast(LlmRequest, {**event, **changes})


def call(**changes: Any) -> LlmCall:
    """An admitted call of such a request."""
    asked = request(**changes)
    provider, _, model = (asked["model"] or "").partition("/")
    return LlmCall(
        request=asked, provider=provider, model=model, max_output_tokens=100, admitted_at=NOON + 1_000,
        reserved_nano_usd=1_000_000, route=None, candidates=[], candidate=0, decisions=[], fall_back_on=[],
        complexity=None, prompt_version=None, cache_key=None, cache_until=None, reply_to=None,
        downgraded_from=None, near_limits=[], unchecked=False,
    )  # fmt: skip


def written(schema: dict[str, Any], event: Any) -> bytes:
    """An event as somebody with another version of its schema writes it, in single-object encoding."""
    out = BytesIO()
    schemaless_writer(out, without_logical_types(schema), event)
    return SINGLE_OBJECT_MAGIC + fingerprint_of(schema) + out.getvalue()
