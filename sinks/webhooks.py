"""Send every alert to the webhooks of the operators: signed, in order, and again until it is taken.

Each webhook has a consumer group of its own, so that one that is down holds up no other. The offset of an alert is committed
after its webhook has taken it; until then it is sent again, by whoever has the partition, under the same id.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from datetime import UTC, datetime
from typing import Any

import orjson
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from config.kafka import librdkafka
from config.settings import Settings, SettingsError
from core.topics import ALERTS
from schemas.codec import Codec, Event, Undecodable
from sinks.pauses import backoff, pause
from sinks.webhook_metrics import WebhookMetrics
from sinks.webhook_post import NotTaken, Receiver, secret_bytes, signed

LOG = logging.getLogger(__name__)

#: The consumer groups begin so, after the prefix of the topics.
GROUP = "millstream-webhooks"
POLL_SECONDS = 0.2
RPC_SECONDS = 30.0
BACKOFF_SECONDS = (1.0, 60.0)
#: One that ran this long before Kafka failed starts afresh without a longer pause.
STEADY_SECONDS = 60.0
#: How old the alerts are at most that a webhook is sent when it is new.
FIRST_HOUR_MS = 3_600_000


def run(settings: Settings, stop: Callable[[], bool], codec: Codec, metrics: WebhookMetrics) -> None:
    """Send alerts until `stop()` is true; Kafka or a webhook being away only delays it.

    Raises `SettingsError` when there is no webhook, one that cannot be sent to, or no secret.
    """
    receivers, secret = receivers_of(settings)
    failed: list[bool] = []
    with ThreadPoolExecutor(len(receivers), thread_name_prefix="webhook") as threads:
        ended = [
            threads.submit(_forever, settings, receiver, secret, codec, metrics, lambda: stop() or bool(failed))
            for receiver in receivers
        ]
        done, _ = wait(ended, return_when=FIRST_COMPLETED)
        failed.append(True)
        for each in done:
            each.result()


def receivers_of(settings: Settings) -> tuple[list[Receiver], bytes]:
    """The webhooks and the key that signs, as the settings have them; `SettingsError` names what cannot be used."""
    receivers = [Receiver(url, settings.alert_webhooks_private) for url in dict.fromkeys(settings.alert_webhooks)]
    if not receivers:
        raise SettingsError("No webhook is set; set MILLSTREAM_ALERT_WEBHOOKS='[\"https://example.com/alerts\"]'.")
    for number, receiver in enumerate(receivers, 1):
        if (problem := receiver.problem) is not None:
            raise SettingsError(f"Webhook {number} of MILLSTREAM_ALERT_WEBHOOKS cannot be used. {problem}")
    secret = settings.alert_webhook_secret
    try:
        key = secret_bytes(secret.get_secret_value()) if secret else b""
    except ValueError as why:
        raise SettingsError(f"MILLSTREAM_ALERT_WEBHOOK_SECRET cannot be used: {why}.") from None
    if not key:
        raise SettingsError(
            "Webhooks are signed; set MILLSTREAM_ALERT_WEBHOOK_SECRET to what their receivers check with."
        )
    return receivers, key


def group_of(settings: Settings, receiver: Receiver) -> str:
    """The consumer group of a webhook; its name does not tell the URL, which may be a secret."""
    return f"{settings.topic_prefix}{GROUP}-{hashlib.sha256(receiver.url.encode()).hexdigest()[:12]}"


def webhook_of(alert: Event) -> bytes:
    """The body of an alert's webhook, the same each time."""
    data = {**alert, "raised_at": _iso(alert["raised_at"]), "details": dict(sorted(alert["details"].items()))}
    return orjson.dumps({"type": alert["kind"], "timestamp": data["raised_at"], "data": data})


def _forever(
    settings: Settings, receiver: Receiver, secret: bytes, codec: Codec, metrics: WebhookMetrics, stop: Callable[[], bool]
) -> None:  # fmt: skip
    failures = 0
    while not stop():
        started = time.monotonic()
        sender = _Sender(settings, receiver, secret, codec, metrics)
        try:
            sender.run(stop)
        except KafkaException as why:
            failures = failures + 1 if time.monotonic() - started < STEADY_SECONDS else 1
            LOG.warning("Kafka failed (%s); starting afresh.", why.args[0])
            pause(backoff(failures, *BACKOFF_SECONDS), stop)
        finally:
            sender.close()


class _Sender:
    """One member of a webhook's consumer group."""

    def __init__(
        self, settings: Settings, receiver: Receiver, secret: bytes, codec: Codec, metrics: WebhookMetrics
    ) -> None:
        self._receiver, self._secret, self._codec, self._metrics = receiver, secret, codec, metrics
        self._topic = ALERTS.on(settings.topic_prefix)
        #: Counts assignments: what was read before the latest one is read again.
        self._turn = 0
        self._consumer = Consumer({
            **librdkafka(settings), "group.id": group_of(settings, receiver), "enable.auto.commit": False,
            "enable.auto.offset.store": False, "auto.offset.reset": "earliest", "isolation.level": "read_committed",
            "session.timeout.ms": int(settings.session_timeout_seconds * 1_000),
        })  # fmt: skip

    def run(self, stop: Callable[[], bool]) -> None:
        """Send what comes until `stop()`."""
        self._consumer.subscribe([self._topic], on_assign=self._assigned, on_revoke=self._revoked)
        while not stop():
            message = self._consumer.poll(POLL_SECONDS)
            if message is None:
                continue
            if (error := message.error()) is not None:
                raise KafkaException(error)
            if self._taken(message, stop):
                self._consumer.commit(message, asynchronous=False)

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close()

    def _assigned(self, consumer: Consumer, assigned: list[TopicPartition]) -> None:
        try:
            self._begin(consumer, assigned)
        except KafkaException as error:
            # One that no Python frame has handled would leave the callback as its bare KafkaError, which nothing can catch.
            raise KafkaException(*error.args) from None

    def _revoked(self, consumer: Consumer, revoked: list[TopicPartition]) -> None:
        self._turn += 1

    def _begin(self, consumer: Consumer, assigned: list[TopicPartition]) -> None:
        """Go on at what is committed; a new group begins with the alerts of the last hour, and commits that place."""
        self._turn += 1
        places = consumer.committed(assigned, timeout=RPC_SECONDS)
        for failed in (place.error for place in places if place.error is not None):
            raise KafkaException(failed)
        begins = self._first_hour(consumer, [place for place in places if place.offset < 0])
        consumer.assign([begins.get(place.partition, place) for place in places])
        consumer.resume(assigned)
        if begins:
            consumer.commit(offsets=list(begins.values()), asynchronous=False)

    def _first_hour(self, consumer: Consumer, places: list[TopicPartition]) -> dict[int, TopicPartition]:
        """Where the alerts of the last hour begin, by partition."""
        since = int(time.time() * 1_000) - FIRST_HOUR_MS
        # Looked at first: what comes after this is younger than an hour, too.
        ends = {place.partition: consumer.get_watermark_offsets(place, timeout=RPC_SECONDS)[1] for place in places}
        asked = [TopicPartition(place.topic, place.partition, since) for place in places]
        found = consumer.offsets_for_times(asked, timeout=RPC_SECONDS) if asked else []
        return {
            place.partition: TopicPartition(
                place.topic, place.partition, place.offset if place.offset >= 0 else ends[place.partition]
            )
            for place in found
        }

    def _taken(self, message: Message, stop: Callable[[], bool]) -> bool:
        """Send one alert until its webhook takes it; False when it is to be read again, or by another."""
        turn, failures = self._turn, 0
        while not stop() and turn == self._turn:
            try:
                self._send(message)
                self._metrics.taken(self._receiver.host)
                if failures:
                    LOG.info("%s takes alerts again.", self._receiver.host)
                    self._consumer.resume(self._consumer.assignment())
                return True
            except Undecodable as why:
                LOG.error("Offset %s of %s holds no alert (%s); going on.", message.offset(), message.topic(), why)
                self._metrics.passed_over(self._receiver.host)
                self._consumer.resume(self._consumer.assignment())
                return True
            except (NotTaken, OSError) as why:
                failures += 1
                reason = (
                    str(why) if isinstance(why, NotTaken) else f"The schema registry is away ({type(why).__name__})."
                )
            self._metrics.failed(self._receiver.host, f"An alert was not delivered: {reason}")
            delay = backoff(failures, *BACKOFF_SECONDS)
            LOG.warning("An alert was not delivered: %s Trying again in %.0f s.", reason, delay)
            self._wait(delay, lambda: stop() or turn != self._turn)
        return False

    def _wait(self, seconds: float, over: Callable[[], bool]) -> None:
        """Wait and stay in the group; a record that comes in spite of the pause is read again later."""
        self._consumer.pause(self._consumer.assignment())
        ends = time.monotonic() + seconds
        while not over() and time.monotonic() < ends:
            message = self._consumer.poll(POLL_SECONDS)
            if message is not None and message.error() is None:
                self._consumer.seek(TopicPartition(message.topic(), message.partition(), message.offset()))

    def _send(self, message: Message) -> None:
        value: Any = message.value()
        alert = self._codec.decode_blocking(ALERTS.record, value)
        body = webhook_of(alert)
        self._receiver.post(body, signed(alert["alert_id"], int(time.time()), body, self._secret))


def _iso(at: int) -> str:
    return datetime.fromtimestamp(at / 1_000_000, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
