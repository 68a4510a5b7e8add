"""How far each consumer group is behind the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from cli.errors import CommandError
from cli.kafka import QUIET, REACH_SECONDS, refusal
from config.kafka import librdkafka
from config.registry import lanes
from config.settings import Settings
from core.topics import REQUESTS, USAGE, Topic, calls, requests_of

#: A consumer group's name and the topics it reads.
Group = tuple[str, Sequence[Topic]]


def groups(settings: Settings, stored: Sequence[Topic]) -> dict[str, Group]:
    """The consumer group of every lane there can be, by the lane's name; `stored` are the topics that the sink stores."""
    prefix = f"{settings.topic_prefix}millstream-"
    providers = {f"complete-{name}": [calls(name)] for name in lanes(settings)}
    own = {"ingress": [requests_of(tenant) for tenant in settings.request_tenants]} if settings.request_tenants else {}
    read: dict[str, Sequence[Topic]] = {**own, "admit": [REQUESTS], **providers, "meter": [USAGE], "sink": stored}
    return {lane: (prefix + lane, topics) for lane, topics in read.items()}


class Lags:
    """Asks Kafka for the lag of groups.

    Its connections are kept also while the broker is away: admin clients that were given up as it came back crashed in librdkafka.
    """

    def __init__(self, settings: Settings, wanted: Mapping[str, Group]) -> None:
        self._settings = settings
        self._wanted = wanted
        self._heard: list[KafkaError] = []
        config = {**librdkafka(settings), "enable.auto.commit": False, "error_cb": self._heard.append}
        self._consumers = {
            lane: Consumer({**config, "group.id": group}, logger=QUIET) for lane, (group, _) in wanted.items()
        }

    def read(self) -> dict[str, int]:
        """Records that each group has not committed, by lane; a lane whose topic does not exist is left out.

        What a group has never committed counts from the oldest record there is. `CommandError` when Kafka does not answer.
        """
        lags = {}
        self._heard.clear()
        try:
            for lane, consumer in self._consumers.items():
                topics = consumer.list_topics(timeout=REACH_SECONDS).topics
                names = [topic.on(self._settings.topic_prefix) for topic in self._wanted[lane][1]]
                places = [TopicPartition(name, n) for name in names if name in topics for n in topics[name].partitions]
                if places:
                    lags[lane] = sum(
                        _lag(consumer, place) for place in consumer.committed(places, timeout=REACH_SECONDS)
                    )
        except KafkaException as why:
            for consumer in self._consumers.values():
                consumer.poll(0)
            raise CommandError(
                refusal(self._settings, self._heard)
                or f"Kafka at {self._settings.kafka_bootstrap} does not tell the groups' offsets ({why.args[0].str()}); try again."
            ) from None
        return lags

    def close(self) -> None:
        """Let go of the broker."""
        for consumer in self._consumers.values():
            consumer.close()


def _lag(consumer: Consumer, committed: TopicPartition) -> int:
    if committed.error is not None:
        raise KafkaException(committed.error)
    place = TopicPartition(committed.topic, committed.partition)
    low, end = consumer.get_watermark_offsets(place, timeout=REACH_SECONDS)
    return max(0, int(end) - max(int(low), int(committed.offset)))
