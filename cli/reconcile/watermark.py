"""Up to where the topics are compared: what the stages and the sink have acknowledged, taken before anything is read.

The order makes it exact while traffic runs. A record that `admit` has acknowledged has its answer or its call on the broker; a
call that its lane has acknowledged has its answer and its usage events there. So acknowledged offsets are taken stage by
stage, and the ends of the topics that they lead to after them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from cli import kafka
from config.kafka import librdkafka
from config.registry import lanes
from config.settings import Settings
from core.topics import DEAD_LETTERS, REQUESTS, RESPONSES, USAGE, Topic, calls
from sinks.consumer import GROUP as SINK
from sinks.partition import event_id
from sinks.rows import FACTS
from sinks.window import REPUBLISHED_WITHIN

Offsets = dict[int, int]
SECONDS = 10.0
#: How far the clocks of those that publish may be apart where a part of the log is chosen by time.
SKEW_US = 60_000_000


@dataclass(slots=True)
class Mark:
    """A topic's offsets by partition: the oldest there is, the first compared, the end, and what was acknowledged.

    `handled` is the stage's that reads the topic (the end, where none does), `stored` the sink's. From `due` on, all that follows
    from a record is still in the other topics.
    """

    topic: Topic
    low: Offsets
    start: Offsets
    end: Offsets
    handled: Offsets
    stored: Offsets
    due: Offsets

    @property
    def whole(self) -> bool:
        """Whether the log reaches back to its first record, and all of it is compared."""
        return not any(self.low.values()) and self.start == self.low

    @property
    def records(self) -> int:
        """Records from the first compared to the end."""
        return sum(self.end.values()) - sum(self.start.values())

    def not_yet(self, acknowledged: Offsets) -> int:
        """Records between what was acknowledged and the end."""
        return sum(max(0, end - acknowledged[number]) for number, end in self.end.items())


@dataclass(slots=True)
class Watermark:
    """The marks by logical topic name, and the calls that a lane has not acknowledged: key, and microseconds of Kafka's time."""

    marks: dict[str, Mark]
    under_way: dict[bytes, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Seen:
    """A record of a topic; `repeated` when an event with its id stood in the partition before."""

    message: Message
    partition: int
    offset: int
    event_id: bytes | None
    repeated: bool


class Log:
    """The topics of a deployment as a reader outside every group sees them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        kafka.need_topics(settings, [fact.topic for fact in FACTS])
        self._consumer = _consumer(settings, "millstream-cli")

    def close(self) -> None:
        """Let go of the broker."""
        self._consumer.close()

    def watermark(self, since_us: int | None) -> Watermark:
        """Take the watermark now; `since_us` leaves out records older than that (microseconds since 1970)."""
        names = lanes(self._settings)
        admitted = self.acknowledged("millstream-admit", REQUESTS)
        called = {name: self.acknowledged(f"millstream-complete-{name}", calls(name)) for name in names}
        waiting = {name: self.bounds(calls(name)) for name in names}
        metered = self.acknowledged("millstream-meter", USAGE)
        stored_to = {fact.topic: self.acknowledged(SINK, fact.topic) for fact in FACTS}
        bounds = {fact.topic: self.bounds(fact.topic) for fact in FACTS}
        whole_from = self._complete_from([(topic, *bounds[topic]) for topic in (RESPONSES, USAGE, DEAD_LETTERS)])
        marks = {}
        for topic, (low, end) in bounds.items():
            since = since_us if topic is REQUESTS or since_us is None else since_us - SKEW_US
            start = due = low if since is None else self._at(topic, since, low, end)
            if topic is REQUESTS and whole_from is not None:
                later = self._at(topic, whole_from, low, end)
                due = {number: max(first, later[number]) for number, first in start.items()}
            handled = _within({REQUESTS: admitted, USAGE: metered}.get(topic, end), low, end)
            stored = _within(stored_to[topic], low, end)
            marks[topic.name] = Mark(topic, low, start, end, handled, stored, due)
        under_way = {
            message.key() or b"": message.timestamp()[1] * 1_000
            for name, (low, end) in waiting.items()
            for message in self.messages(calls(name), _within(called[name], low, end), end)
        }
        return Watermark(marks, under_way)

    def acknowledged(self, group: str, topic: Topic) -> Offsets:
        """What a group has committed, by partition; a partition of which it has committed nothing is left out."""
        name = topic.on(self._settings.topic_prefix)
        reader = _consumer(self._settings, self._settings.topic_prefix + group)
        try:
            places = [TopicPartition(name, number) for number in self._partitions(topic)]
            committed = reader.committed(places, timeout=SECONDS) if places else []
            return {place.partition: place.offset for place in committed if place.offset >= 0}
        finally:
            reader.close()

    def bounds(self, topic: Topic) -> tuple[Offsets, Offsets]:
        """The first offset and the end of each partition."""
        name = topic.on(self._settings.topic_prefix)
        low, end = {}, {}
        for number in self._partitions(topic):
            place = TopicPartition(name, number)
            low[number], end[number] = self._consumer.get_watermark_offsets(place, timeout=SECONDS)
        return low, end

    def seen(self, mark: Mark) -> Iterator[Seen]:
        """The records of a topic from its mark's start to its end, partition by partition in the order of the offsets."""
        # What an earlier record repeats is decided by what stood before the start.
        begin = {number: max(mark.low[number], start - REPUBLISHED_WITHIN) for number, start in mark.start.items()}
        known: dict[int, set[bytes]] = {number: set() for number in begin}
        for message in self.messages(mark.topic, begin, mark.end):
            number, offset, identity = message.partition(), message.offset(), event_id(message)
            before = known[number]
            repeated = identity in before
            if identity is not None:
                before.add(identity)
            if offset >= mark.start[number]:
                yield Seen(message, number, offset, identity, repeated)

    def messages(self, topic: Topic, begin: Offsets, end: Offsets) -> Iterator[Message]:
        """The records of a topic between these offsets."""
        name = topic.on(self._settings.topic_prefix)
        left = {number for number, first in begin.items() if first < end[number]}
        if not left:
            return
        self._consumer.assign([TopicPartition(name, number, begin[number]) for number in left])
        while left:
            for message in self._consumer.consume(2_000, 0.05):
                number = message.partition()
                error = message.error()
                if error is not None:
                    if error.code() == KafkaError._PARTITION_EOF:
                        left.discard(number)
                    continue
                if number in left and message.offset() < end[number]:
                    yield message
                if message.offset() >= end[number] - 1:
                    left.discard(number)
        self._consumer.unassign()

    def _complete_from(self, topics: list[tuple[Topic, Offsets, Offsets]]) -> int | None:
        """From when on what follows from a request is still in these topics, in microseconds; None where nothing is gone.

        Topics lose their beginnings by whole segments, each topic its own, so a request can outlive its answer.
        """
        oldest = []
        for topic, low, end in topics:
            cut = {number: first for number, first in low.items() if first and first < end[number]}
            just_one = {number: first + 1 for number, first in cut.items()}
            oldest += [message.timestamp()[1] for message in self.messages(topic, cut, just_one)]
        return max(oldest) * 1_000 + SKEW_US if oldest else None

    def _at(self, topic: Topic, since_us: int, low: Offsets, end: Offsets) -> Offsets:
        name = topic.on(self._settings.topic_prefix)
        wanted = [TopicPartition(name, number, since_us // 1_000) for number in low]
        found = self._consumer.offsets_for_times(wanted, timeout=SECONDS) if wanted else []
        return {place.partition: place.offset if place.offset >= 0 else end[place.partition] for place in found}

    def _partitions(self, topic: Topic) -> list[int]:
        name = topic.on(self._settings.topic_prefix)
        found = self._consumer.list_topics(timeout=SECONDS).topics.get(name)
        return sorted(found.partitions) if found is not None else []


def _within(offsets: Offsets, low: Offsets, end: Offsets) -> Offsets:
    return {number: min(max(offsets.get(number, first), first), end[number]) for number, first in low.items()}


def _consumer(settings: Settings, group: str) -> Consumer:
    return Consumer(
        {
            **librdkafka(settings), "group.id": group, "enable.auto.commit": False,
            "enable.partition.eof": True, "auto.offset.reset": "earliest", "fetch.wait.max.ms": 20,
            "fetch.message.max.bytes": settings.max_record_bytes,
        },
        logger=kafka.QUIET,
    )  # fmt: skip
