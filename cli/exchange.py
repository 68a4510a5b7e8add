"""Send requests and wait for their answers: what `send`, `demo`, the tests and the benchmarks share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from confluent_kafka import Producer

from cli import kafka
from cli.errors import CommandError
from config.kafka import librdkafka
from config.schema_registry import open_codec
from config.settings import Settings
from core.topics import REQUESTS, RESPONSES, requests_of
from schemas.cloudevents import headers, trace_of
from schemas.codec import Event, Undecodable
from schemas.events import LlmRequest
from schemas.signing import signed_headers


class Exchange:
    """Sends requests and collects their answers; made before the first request is sent, so that none is missed."""

    def __init__(self, settings: Settings) -> None:
        kafka.need_topics(settings, [REQUESTS])
        self.codec = open_codec(settings)
        self._api_key = _api_key(settings)
        self._topic = REQUESTS.on(settings.topic_prefix)
        self._own_topics = {
            tenant: requests_of(tenant).on(settings.topic_prefix) for tenant in settings.request_tenants
        }
        self._answers = kafka.reader(settings, RESPONSES, from_beginning=False)
        self._records = kafka.records(self._answers)
        self._producer = Producer(
            {
                **librdkafka(settings), "enable.idempotence": True, "linger.ms": 2,
                "message.max.bytes": settings.max_record_bytes,
            },
            logger=kafka.QUIET,
        )  # fmt: skip
        self._undelivered: list[str] = []

    def send(self, request: LlmRequest) -> None:
        """Publish one request."""
        request_id = request["request_id"]
        value = self.codec.encode("LlmRequest", request)
        told = headers("LlmRequest", request_id, "send", request["created_at"], trace_of([], request_id))
        if self._api_key is not None:
            told += signed_headers(self._api_key, value, int(time.time()))
        self.send_bytes(request_id.encode(), value, told, self._own_topics.get(request["tenant"]))

    def send_bytes(
        self,
        key: bytes | None,
        value: bytes | None,
        with_headers: Sequence[tuple[str, bytes | None]],
        topic: str | None = None,
    ) -> None:
        """Publish any record on the request topic, or on a tenant's own by its name on the broker."""
        self._producer.produce(
            topic or self._topic, value, key, headers=list(with_headers), on_delivery=self._delivered
        )
        self._producer.poll(0)

    def flush(self) -> None:
        """Return when the broker has every request; `CommandError` when it did not take one."""
        self._producer.flush(30)
        if self._undelivered:
            raise CommandError(f"The broker did not take a request: {self._undelivered[0]}.")

    def answers(
        self, wanted: Iterable[str], seconds: float, arrived: Callable[[Event], None] = lambda _: None
    ) -> dict[str, Event]:
        """The answers to these request ids by id, as many as come within `seconds` of the last one to come."""
        missing = set(wanted)
        found: dict[str, Event] = {}
        ends = time.monotonic() + seconds
        while missing and time.monotonic() < ends:
            message = next(self._records)
            if message is None:
                self._producer.poll(0)
                continue
            try:
                answer = self.codec.decode_blocking("LlmResponse", message.value())
            except Undecodable:
                continue
            if answer["request_id"] in missing:
                missing.discard(answer["request_id"])
                found[answer["request_id"]] = answer
                ends = time.monotonic() + seconds
                arrived(answer)
        return found

    def close(self) -> None:
        """Let go of the broker."""
        self._answers.close()

    def _delivered(self, error: Any, _: Any) -> None:
        if error is not None:
            self._undelivered.append(error.str())


def _api_key(settings: Settings) -> str | None:
    key = settings.api_key.get_secret_value() if settings.api_key is not None else None
    if key is not None and not (key.isascii() and "." in key):
        raise CommandError(
            "MILLSTREAM_API_KEY is no key of Millstream's; give it whole, as `millstream keys issue` printed it."
        )
    return key
