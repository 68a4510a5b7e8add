"""Take requests from the topics of single tenants, and put each as its tenant's on the request topic that admit reads."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import cast

from agents.outgoing import Clock, Encoder, decode, place_of
from agents.replies import Replies
from core.admission import UUID
from core.errors import error
from core.facts import refusal, undecodable
from core.outcome import Emit, Outcome, Outgoing, Record, Reject
from core.topics import REQUESTS
from core.trust import mismatch_with_topic
from schemas.cloudevents import CE_ID, trace_of
from schemas.codec import Codec, Undecodable
from schemas.events import LlmRequest


class Ingress:
    """The ingress stage; `tenants` by their topics' names on the broker."""

    def __init__(self, codec: Codec, tenants: Mapping[str, str], replies: Replies, clock: Clock) -> None:
        self._codec = codec
        self._encoder = Encoder(codec, "ingress", clock)
        self._tenants = tenants
        self._replies = replies

    async def __call__(self, record: Record) -> Outcome:
        """Deal with one record of a tenant's topic; of what does not go on, nothing is stored."""
        tenant = self._tenants[record.topic]
        answer_id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"response/{place_of(record)}"))
        try:
            request = cast(LlmRequest, await decode(self._codec, "LlmRequest", record.value))
        except Undecodable as why:
            failure = error("caller_undecodable", str(why))
            request_id = (record.key or b"").decode("ascii", "replace")
            if not UUID.fullmatch(request_id):
                return Reject(failure["code"], str(why))
            answer = undecodable(request_id, failure, record.timestamp_us)
            trace = trace_of(record.headers, request_id)
            to = await self._replies.by_headers(record.headers, tenant)
            return Reject(failure["code"], str(why), self._encoder.answer(answer, trace, to, answer_id))
        own = cast(LlmRequest, {**request, "tenant": tenant})
        if (other := mismatch_with_topic(request, tenant, record.topic)) is not None:
            trace = trace_of(record.headers, request["request_id"])
            refused = refusal(own, "refused", other, record.timestamp_us)
            to = await self._replies.by_headers(record.headers, tenant)
            return Emit(self._encoder.answer(refused, trace, to, answer_id))
        value = record.value if request["tenant"] == tenant else self._codec.encode("LlmRequest", own)
        headers = list(record.headers)
        if not any(name == CE_ID for name, _ in headers):
            headers.append((CE_ID, str(uuid.uuid5(uuid.NAMESPACE_URL, f"request/{place_of(record)}")).encode()))
        return Emit((Outgoing(REQUESTS.name, record.key or own["request_id"].encode(), value or b"", headers),))
