"""What the commands need of Kafka: a client that says clearly when the broker is away, topics, positions, records."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from cli.errors import CommandError
from config.kafka import librdkafka
from config.settings import Settings
from core.topics import REQUESTS, Topic

REACH_SECONDS = 5.0
QUIET = logging.getLogger("millstream.librdkafka")
QUIET.addHandler(logging.NullHandler())
QUIET.propagate = False


def admin(settings: Settings) -> tuple[AdminClient, set[str]]:
    """A connected admin client and the names of the topics; `CommandError` when no broker answers, or none takes this client."""
    heard: list[KafkaError] = []
    client = AdminClient({**librdkafka(settings), "error_cb": heard.append}, logger=QUIET)
    try:
        return client, set(client.list_topics(timeout=REACH_SECONDS).topics)
    except KafkaException:
        client.poll(0)
        raise CommandError(
            refusal(settings, heard)
            or f"No Kafka broker answers at {settings.kafka_bootstrap} with {settings.kafka_security_protocol}; start one with "
            "`millstream up`, or set MILLSTREAM_KAFKA_BOOTSTRAP and MILLSTREAM_KAFKA_SECURITY_PROTOCOL."
        ) from None


def refusal(settings: Settings, heard: Iterable[KafkaError]) -> str | None:
    """Why there is no connection although there is a broker, by what librdkafka told an `error_cb`; None when it is not that."""
    codes = {error.code() for error in heard}
    if KafkaError._AUTHENTICATION in codes:
        return (
            f"Kafka at {settings.kafka_bootstrap} refuses the user {settings.kafka_sasl_username!r} with "
            f"{settings.kafka_sasl_mechanism}; check MILLSTREAM_KAFKA_SASL_USERNAME, _SASL_PASSWORD and _SASL_MECHANISM."
        )
    if KafkaError._SSL in codes:
        return (
            f"There is no TLS connection to Kafka at {settings.kafka_bootstrap}; check MILLSTREAM_KAFKA_SECURITY_PROTOCOL, "
            "and that MILLSTREAM_KAFKA_SSL_CA_LOCATION holds the authority of its certificate, which must name this host."
        )
    return None


def need_topics(settings: Settings, topics: list[Topic]) -> None:
    """`CommandError` when a topic is missing."""
    _, present = admin(settings)
    missing = [t.on(settings.topic_prefix) for t in topics if t.on(settings.topic_prefix) not in present]
    if missing:
        hidden = "" if settings.kafka_security_protocol == "PLAINTEXT" else ", or no ACL shows it to this user"
        raise CommandError(
            f"Topic {missing[0]} does not exist at {settings.kafka_bootstrap}{hidden}; run `millstream migrate`."
        )


def create_topics(settings: Settings, topics: tuple[Topic, ...]) -> list[str]:
    """Create the topics that are missing; their names."""
    client, present = admin(settings)
    signed = settings.trust == "signed"
    wanted = [
        NewTopic(
            name, settings.topic_partitions, settings.topic_replication,
            config={
                "retention.ms": str(topic.keep_ms),
                "max.message.bytes": str(settings.max_record_bytes),
                # A signature is judged by this time, however long its record has waited in the log.
                **({"message.timestamp.type": "LogAppendTime"} if signed and topic is REQUESTS else {}),
            },
        )
        for topic in topics
        if (name := topic.on(settings.topic_prefix)) not in present
    ]  # fmt: skip
    for name, created in client.create_topics(wanted).items() if wanted else ():
        try:
            created.result()
        except KafkaException as error:
            raise CommandError(f"Topic {name} could not be created: {error.args[0].str()}.") from None
    return [topic.topic for topic in wanted]


def reader(settings: Settings, topic: Topic, *, from_beginning: bool) -> Consumer:
    """A consumer of every partition of a topic, outside any group; from now on, or from the beginning."""
    need_topics(settings, [topic])
    name = topic.on(settings.topic_prefix)
    consumer = Consumer(
        {
            **librdkafka(settings), "group.id": "millstream-cli", "enable.auto.commit": False,
            "auto.offset.reset": "earliest", "fetch.wait.max.ms": 20,
            "fetch.message.max.bytes": settings.max_record_bytes,
        },
        logger=QUIET,
    )  # fmt: skip
    partitions = consumer.list_topics(name, timeout=REACH_SECONDS).topics[name].partitions
    start = []
    for number in partitions:
        position = OFFSET_BEGINNING
        if not from_beginning:
            # Where the log ends now, so that an answer to what is sent next cannot be missed.
            _, position = consumer.get_watermark_offsets(TopicPartition(name, number), timeout=REACH_SECONDS)
        start.append(TopicPartition(name, number, position if from_beginning or position >= 0 else OFFSET_END))
    consumer.assign(start)
    return consumer


def count(settings: Settings, topic: Topic) -> int:
    """How many records a topic holds, by its partitions' offsets."""
    name = topic.on(settings.topic_prefix)
    consumer = Consumer({**librdkafka(settings), "group.id": "millstream-cli"}, logger=QUIET)
    held = 0
    for number in consumer.list_topics(name, timeout=REACH_SECONDS).topics[name].partitions:
        low, high = consumer.get_watermark_offsets(TopicPartition(name, number), timeout=REACH_SECONDS)
        held += high - low
    consumer.close()
    return held


def records(consumer: Consumer) -> Iterator[Message | None]:
    """Records as they come, for ever, and None now and then while there are none."""
    while True:
        # `consume` waits for a full batch or its whole time, so the first record is polled for.
        first = consumer.poll(0.1)
        if first is None:
            yield None
            continue
        batch: list[Any] = [first, *consumer.consume(500, timeout=0)]
        yield from (message for message in batch if message.error() is None)
