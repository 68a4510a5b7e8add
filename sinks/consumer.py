"""Copy the topics into ClickHouse, each event exactly once.

One batch of a partition at a time goes through three steps. Its bounds are committed to Kafka as metadata of the offset;
it is inserted under a token made of those bounds; the offset after it is committed. Whoever takes the partition over
finds the bounds, reads the same records again and inserts them under the same token, which ClickHouse knows by then or
not. A consumer that has lost the partition cannot commit bounds, so it inserts nothing that nobody else knows of.

The group rebalances eagerly: every assignment begins at what is committed, and nothing outlives a revocation but the
windows of event ids, which are functions of the log.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

from clickhouse_connect.driver.exceptions import Error as ClickHouseError
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from config.kafka import librdkafka
from config.settings import Settings
from schemas.codec import Codec
from sinks.batch import Prepared, prepare
from sinks.dead_letters import DeadLetters
from sinks.metrics import Place, SinkMetrics
from sinks.partition import Partition, resume_from
from sinks.pauses import backoff, pause
from sinks.query import reason
from sinks.rows import FACTS, Fact
from sinks.tables import SchemaBehind, require_current_schema
from sinks.window import Window
from sinks.writer import Writer

LOG = logging.getLogger(__name__)

#: The consumer group, after the prefix of the topics.
GROUP = "millstream-sink"
READ_MESSAGES = 2_000
READ_SECONDS = 0.1
RPC_SECONDS = 30.0
#: A sink that ran this long before Kafka failed starts afresh without a longer pause.
STEADY_SECONDS = 60.0
BACKOFF_SECONDS = (0.5, 30.0)
#: Batches that are decoded and inserted side by side: while ClickHouse takes one, the next is decoded.
INSERTS = 2
#: A sink that its group has not known for so long starts afresh.
REJOIN_SECONDS = 45.0
#: A round of inserts ends after this, so that the group hears of us: see max.poll.interval.ms.
ROUND_SECONDS = 20.0

#: https://github.com/ClickHouse/ClickHouse/blob/master/src/Common/ErrorCodes.cpp
UNKNOWN_DATABASE = 81

#: The partition is another member's by now: https://kafka.apache.org/protocol#protocol_error_codes
LOST = frozenset(
    {
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.FENCED_INSTANCE_ID,
        KafkaError._ASSIGNMENT_LOST,
    }
)


def run(settings: Settings, stop: Callable[[], bool], codec: Codec, metrics: SinkMetrics | None = None) -> None:
    """Store events until `stop()` is true; ClickHouse or Kafka being away only delays it.

    Raises `SchemaBehind` when ClickHouse has not been migrated.
    """
    failures = 0
    metrics = metrics or SinkMetrics(settings)
    while not stop():
        started = time.monotonic()
        sink = Sink(settings, codec, metrics)
        try:
            if sink.wait_for_store(stop):
                sink.run(stop)
        except KafkaException as error:
            failures = failures + 1 if time.monotonic() - started < STEADY_SECONDS else 1
            delay = backoff(failures, *BACKOFF_SECONDS)
            LOG.warning("Kafka failed (%s); starting afresh in %.1f s.", _first_line(error), delay)
            pause(delay, stop)
        finally:
            sink.close()


class Sink:
    """One member of the sink's consumer group."""

    def __init__(self, settings: Settings, codec: Codec, metrics: SinkMetrics) -> None:
        self._metrics = metrics
        self._rows = settings.sink_batch_rows
        self._seconds = settings.sink_batch_seconds
        self._keep = settings.bodies
        self._codec = codec
        self._writers = [Writer(settings) for _ in range(INSERTS)]
        self._idle_writers: SimpleQueue[Writer] = SimpleQueue()
        for writer in self._writers:
            self._idle_writers.put(writer)
        self._threads = ThreadPoolExecutor(INSERTS, thread_name_prefix="insert")
        self._dead_letters = DeadLetters(settings, codec)
        self._facts = {fact.topic.on(settings.topic_prefix): fact for fact in FACTS}
        self._partitions: dict[tuple[str, int], Partition] = {}
        self._windows: dict[tuple[str, int], Window] = {}
        self._member = ""
        self._consumer = Consumer(_consumer_config(settings))
        self._known_at = time.monotonic()
        metrics.places = self._places

    def wait_for_store(self, stop: Callable[[], bool]) -> bool:
        """Wait until ClickHouse answers; False when stopped before. Raises `SchemaBehind`."""
        failures = 0
        while not stop():
            try:
                require_current_schema(self._writers[0].client)
                return True
            except ClickHouseError as error:
                if error.code == UNKNOWN_DATABASE:
                    raise SchemaBehind.at(0) from None
                failures += 1
                delay = backoff(failures, *BACKOFF_SECONDS)
                LOG.warning("ClickHouse does not answer (%s); trying again in %.1f s.", _first_line(error), delay)
                pause(delay, stop)
        return False

    def run(self, stop: Callable[[], bool]) -> None:
        """Read and store until `stop()`; what is read and not yet stored is left to the next member."""
        self._consumer.subscribe(list(self._facts), on_assign=self._assigned, on_revoke=self._revoked)
        while not stop():
            messages = self._consumer.consume(READ_MESSAGES, READ_SECONDS)
            now = time.monotonic()
            self._take(messages, now)
            due = [p for p in self._partitions.values() if p.due(self._rows, self._seconds, now)]
            if due:
                self._store(due)
            self._check_membership()

    def _check_membership(self) -> None:
        """KafkaException when the group has not known this consumer for REJOIN_SECONDS.

        After several restarts of a broker, librdkafka 2.16 was seen to keep its JoinGroup request in a queue for minutes, without a
        connection to the coordinator ("GroupCoordinator: Timed out 0 in-flight, 0 retry-queued, 1 out-queue").
        """
        if self._partitions or self._consumer.memberid():
            self._known_at = time.monotonic()
        elif time.monotonic() - self._known_at > REJOIN_SECONDS:
            raise KafkaException(KafkaError(KafkaError._WAIT_COORD, "The group does not take this consumer back."))

    def close(self) -> None:
        """Leave the group and close every connection."""
        self._partitions.clear()
        self._consumer.close()
        self._threads.shutdown()
        for writer in self._writers:
            writer.close()

    def _places(self) -> list[Place]:
        partitions = list(self._partitions.values())
        return [Place(p.topic, p.number, p.first, p.waiting_since_ms(), p.problem) for p in partitions]

    # --- assignment

    def _assigned(self, consumer: Consumer, assigned: list[TopicPartition]) -> None:
        try:
            self._take_over(consumer, assigned)
        except KafkaException as error:
            # One that the library raised, and that no Python frame has handled, would leave the callback as its bare KafkaError,
            # which is no exception and which nothing can catch.
            raise KafkaException(*error.args) from None

    def _take_over(self, consumer: Consumer, assigned: list[TopicPartition]) -> None:
        self._member = consumer.memberid() or ""
        committed = consumer.committed(assigned, timeout=RPC_SECONDS)
        windows, self._windows = self._windows, {}
        for place in committed:
            if place.error is not None:
                raise KafkaException(place.error)
            partition = self._resumed(consumer, place, windows.get((place.topic, place.partition)))
            key = (place.topic, place.partition)
            self._partitions[key], self._windows[key] = partition, partition.window
        consumer.assign([p.position(p.next_offset) for p in self._partitions.values()])
        consumer.resume(assigned)
        LOG.info("%d partitions are assigned.", len(assigned))

    def _resumed(self, consumer: Consumer, place: TopicPartition, window: Window | None) -> Partition:
        low, high = consumer.get_watermark_offsets(TopicPartition(place.topic, place.partition), timeout=RPC_SECONDS)
        first, last = resume_from(place.offset, place.metadata, low, high)
        if place.offset >= 0 and first != place.offset:
            LOG.warning(
                "%s partition %d was stored up to offset %d, but the log reaches from %d to %d; going on at %d.",
                *(place.topic, place.partition, place.offset, low, high, first),
            )
        if window is None or window.next_offset > first or first < place.offset:
            window = Window(low)
        start = max(low, first - window.within, window.next_offset)
        fact = self._facts[place.topic]
        if 0 <= place.offset <= high:
            self._note_lost(fact, TopicPartition(place.topic, place.partition), place.offset, low, last)
        return Partition(place.topic, place.partition, fact, first, last, window, start)

    def _revoked(self, consumer: Consumer, revoked: list[TopicPartition]) -> None:
        self._partitions.clear()

    # --- reading

    def _take(self, messages: Iterable[Message], now: float) -> None:
        grouped: dict[tuple[str, int], list[Message]] = {}
        gone: list[Message] = []
        for message in messages:
            if (error := message.error()) is not None:
                _note_read_error(error)
                if error.code() == KafkaError._AUTO_OFFSET_RESET:
                    gone.append(message)
                continue
            grouped.setdefault((message.topic(), message.partition()), []).append(message)
        for key, group in grouped.items():
            partition = self._partitions.get(key)
            if partition is not None and not partition.take(group, now):
                self._consumer.seek(partition.position(partition.next_offset))
        for message in gone:
            self._skip_deleted(message)

    def _skip_deleted(self, message: Message) -> None:
        """Go on where the log begins now, when retention has taken what was to be read next."""
        partition = self._partitions.get((message.topic(), message.partition()))
        if partition is None:
            return
        low, high = self._consumer.get_watermark_offsets(partition.position(0), timeout=RPC_SECONDS)
        if partition.next_offset > high:  # the log has lost its end, or is another one
            raise KafkaException(message.error())
        unread = max(partition.first, partition.next_offset)
        self._note_lost(partition.fact, partition.position(0), unread, low, partition.last)
        partition.skip_to(low)
        # A partition that has no place cannot be sought.
        partitions = self._partitions.values()
        self._consumer.assign([each.position(each.next_offset) for each in partitions])
        self._consumer.pause([each.position(0) for each in partitions if each.failures])
        self._consumer.resume([each.position(0) for each in partitions if not each.failures])

    def _note_lost(self, fact: Fact, place: TopicPartition, first: int, low: int, last: int | None) -> None:
        """Say that the records from `first` to where the log begins are gone; up to `last` they may have been stored."""
        if first >= low:
            return
        self._metrics.lost(fact.table, low - first)
        begun = (
            ""
            if last is None or last < first or last == low - 1
            else f"; a batch up to {last} was begun, and may be stored"
        )
        LOG.error(
            "Kafka deleted %d records of %s partition %d before they were known to be stored, offsets %d to %d%s. "
            "Going on at %d; give the topic a longer retention.",
            *(low - first, place.topic, place.partition, first, low - 1, begun, low),
        )

    # --- storing

    def _store(self, due: list[Partition]) -> None:
        """One round: record the bounds of every batch, insert them, commit those that are in."""
        begun = [(partition, partition.begin(self._rows)) for partition in due]
        recorded = self._committed(
            [(partition, batch.first, f"{batch.first}-{batch.last}") for partition, batch in begun]
        )
        ends = time.monotonic() + ROUND_SECONDS
        inserts = [(partition, self._threads.submit(self._inserted, partition, ends)) for partition in recorded]
        stored = []
        for partition, insert in inserts:
            try:
                prepared = insert.result()
                if prepared is None:
                    continue
                self._dead_letters.send(prepared.rejected)
                self._metrics.rejected(len(prepared.rejected))
                stored.append(partition)
            except Exception as error:
                self._postpone(partition, "stored", error)
        done = self._committed([(p, p.batch.last + 1, "") for p in stored if p.batch is not None])
        now = time.monotonic()
        for partition in done:
            if partition.failures:
                self._consumer.resume([partition.position(0)])
            if (oldest := partition.waiting_since_ms()) is not None:
                self._metrics.stored(oldest)
            partition.finish(now)

    def _inserted(self, partition: Partition, ends: float) -> Prepared | None:
        """Insert a partition's batch; None when the round is over before it begins."""
        batch = partition.batch
        if batch is None or time.monotonic() > ends:
            return None
        place = f"{partition.topic}:{partition.number}:{batch.first}-{batch.last}"
        writer = self._idle_writers.get()
        try:
            prepared = prepare(partition, batch, self._codec, writer.encoded, self._keep)
            for insert in prepared.inserts:
                began = time.monotonic()
                writer.insert(insert.body, f"{insert.table}:{place}")
                self._metrics.inserted(insert.table, insert.rows, len(insert.body), time.monotonic() - began)
        finally:
            self._idle_writers.put(writer)
        return prepared

    def _committed(self, positions: list[tuple[Partition, int, str]]) -> list[Partition]:
        """Commit these offsets; the partitions of which the group has taken it."""
        if not positions:
            return []
        if self._consumer.memberid() != self._member:
            self._forget([partition for partition, *_ in positions])
            return []
        wanted = [partition.position(offset, metadata) for partition, offset, metadata in positions]
        try:
            results = self._consumer.commit(offsets=wanted, asynchronous=False) or []
            errors = {(result.topic, result.partition): result.error for result in results}
        except KafkaException as failed:
            errors = {(place.topic, place.partition): failed.args[0] for place in wanted}
        taken = []
        for partition, *_ in positions:
            error = errors.get((partition.topic, partition.number))
            if error is None:
                taken.append(partition)
            elif error.code() in LOST:
                self._forget([partition])
            else:
                self._postpone(partition, "committed", KafkaException(error))
        return taken

    def _postpone(self, partition: Partition, step: str, error: Exception) -> None:
        """Keep the batch, read nothing more of its partition, and try again later."""
        if not partition.failures:
            self._consumer.pause([partition.position(0)])
        partition.failures += 1
        partition.problem = f"cannot be {step}: {reason(str(error)) or type(error).__name__}"
        self._metrics.retried(step)
        delay = backoff(partition.failures, *BACKOFF_SECONDS)
        partition.retry_at = time.monotonic() + delay
        LOG.warning(
            "A batch of %s partition %d could not be %s (%s); trying again in %.1f s.",
            *(partition.topic, partition.number, step, _first_line(error), delay),
        )

    def _forget(self, partitions: list[Partition]) -> None:
        """The group has given these to another member: drop them until they are assigned again."""
        for partition in partitions:
            self._partitions.pop((partition.topic, partition.number), None)
            LOG.warning("%s partition %d is another member's now.", partition.topic, partition.number)


def _consumer_config(settings: Settings) -> dict[str, Any]:
    session_ms = int(settings.session_timeout_seconds * 1000)
    return {
        **librdkafka(settings),
        "group.id": settings.topic_prefix + GROUP,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
        "partition.assignment.strategy": "roundrobin",
        "session.timeout.ms": session_ms,
        "heartbeat.interval.ms": min(3_000, session_ms // 5),
        "max.poll.interval.ms": 600_000,
        "topic.metadata.refresh.interval.ms": 10_000,
        "queued.max.messages.kbytes": 16_384,
        "fetch.queue.backoff.ms": 20,
        "fetch.wait.max.ms": 100,
    }


def _note_read_error(error: KafkaError) -> None:
    if error.fatal():
        raise KafkaException(error)
    LOG.warning("Kafka says while reading: %s.", error.str())


def _first_line(error: Exception) -> str:
    """The beginning of an error's text, without the query or the data that may follow."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
