"""How far each consumer group is behind the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from cli.errors import CommandError
from cli.kafka import REACH_SECONDS, admin
from config.settings import PROVIDER_NAMES, Settings
from core.topics import REQUESTS, USAGE, Topic, calls

#: A consumer group's name and the topics it reads.
Group = tuple[str, Sequence[Topic]]


def groups(settings: Settings, stored: Sequence[Topic]) -> dict[str, Group]:
    """The consumer group of every lane there can be, by the lane's name; `stored` are the topics that the sink stores."""
    prefix = f"{settings.topic_prefix}millstream-"
    providers = {f"complete-{name}": [calls(name)] for name in PROVIDER_NAMES}
    read: dict[str, Sequence[Topic]] = {"admit": [REQUESTS], **providers, "meter": [USAGE], "sink": stored}
    return {lane: (prefix + lane, topics) for lane, topics in read.items()}


class Lags:
    """Asks Kafka for the lag of groups; the connection is kept."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: AdminClient | None = None

    def read(self, wanted: Mapping[str, Group]) -> dict[str, int]:
        """Records that each group has not committed, by lane; a lane whose topic does not exist is left out.

        What a group has never committed counts from the oldest record there is. `CommandError` when Kafka does not answer.
        """
        client = self._client or admin(self._settings)[0]
        self._client = None
        try:
            lags = self._read(client, wanted)
        except KafkaException as why:
            admin(self._settings)  # says that no broker answers, if so
            raise CommandError(
                f"Kafka at {self._settings.kafka_bootstrap} does not tell the groups' offsets ({why.args[0].str()}); try again."
            ) from None
        self._client = client
        return lags

    def _read(self, client: AdminClient, wanted: Mapping[str, Group]) -> dict[str, int]:
        topics = client.list_topics(timeout=REACH_SECONDS).topics
        places = {
            lane: [
                (name, number)
                for topic in read
                if (name := topic.on(self._settings.topic_prefix)) in topics
                for number in topics[name].partitions
            ]
            for lane, (_, read) in wanted.items()
        }
        committed = self._committed(client, {wanted[lane][0]: held for lane, held in places.items() if held})
        every = sorted({place for held in places.values() for place in held})
        ends, begins = (self._offsets(client, every, spec) for spec in (OffsetSpec.latest(), OffsetSpec.earliest()))
        lags = {}
        for lane, held in places.items():
            offsets = committed.get(wanted[lane][0], {})
            if held:
                lags[lane] = sum(max(0, ends[p] - max(begins[p], offsets.get(p, -1))) for p in held)
        return lags

    def _committed(
        self, client: AdminClient, wanted: Mapping[str, Sequence[tuple[str, int]]]
    ) -> dict[str, dict[tuple[str, int], int]]:
        found: dict[str, dict[tuple[str, int], int]] = {}
        asked = []
        for group, held in wanted.items():
            # One group a request: that is all the client takes.
            request = [ConsumerGroupTopicPartitions(group, [TopicPartition(*place) for place in held])]
            asked.append(client.list_consumer_group_offsets(request, request_timeout=REACH_SECONDS))
        for answers in asked:
            for group, answer in answers.items():
                places = answer.result().topic_partitions
                found[group] = {(place.topic, place.partition): place.offset for place in places}
        return found

    def _offsets(
        self, client: AdminClient, places: Sequence[tuple[str, int]], spec: OffsetSpec
    ) -> dict[tuple[str, int], int]:
        if not places:
            return {}
        asked = client.list_offsets({TopicPartition(*place): spec for place in places}, request_timeout=REACH_SECONDS)
        return {(place.topic, place.partition): answer.result().offset for place, answer in asked.items()}
