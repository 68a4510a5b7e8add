"""What the sink tells Prometheus: how far it is behind, what it stores, and how long that takes."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaException, TopicPartition
from prometheus_client import Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from config.kafka import librdkafka
from config.monitoring import new_registry
from config.settings import Settings
from sinks import bodies
from sinks.rows import FACTS

KAFKA_SECONDS = 3.0
INSERT_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
BATCH_ROWS = (1, 10, 100, 1_000, 2_500, 5_000, 10_000, 20_000)
FRESHNESS_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0)
STAGE = "sink"


class Place(NamedTuple):
    """Where the sink stands in a partition: the next offset to store, and the time of the oldest record read and not stored.

    Times are milliseconds since 1970; None when nothing is waiting here. `problem` says why its batch could not be dealt with.
    """

    topic: str
    partition: int
    next_offset: int
    waiting_since_ms: int | None
    problem: str = ""


class SinkMetrics:
    """The metrics of one sink process; `registry` holds them, `places` says where the sink stands."""

    def __init__(self, settings: Settings) -> None:
        self.registry = registry = new_registry()
        self.places: Callable[[], list[Place]] = list
        self._rows = Counter("millstream_sink_rows_total", "Rows inserted.", ("table",), registry=registry)
        self._bytes = Counter(
            "millstream_sink_bytes_total", "Bytes sent with inserts, compressed.", ("table",), registry=registry
        )
        self._insert_seconds = Histogram(
            "millstream_sink_insert_seconds", "Time of one insert.", registry=registry, buckets=INSERT_SECONDS
        )
        self._batch_rows = Histogram(
            "millstream_sink_batch_rows", "Rows of one insert.", registry=registry, buckets=BATCH_ROWS
        )
        self._freshness = Histogram(
            "millstream_sink_freshness_seconds", "Age of a batch's oldest record when the batch was stored.",
            registry=registry, buckets=FRESHNESS_SECONDS,
        )  # fmt: skip
        self._retries = Counter(
            "millstream_sink_retries_total", "Batches that could not be stored or committed and are tried again.",
            ("step",), registry=registry,
        )  # fmt: skip
        self._dead_letters = Counter(
            "millstream_dead_letters_total", "Records that became dead letters.", ("stage", "reason"), registry=registry
        )
        self._lost = Counter(
            "millstream_sink_lost_records_total", "Records that Kafka deleted before they were known to be stored.",
            ("table",), registry=registry,
        )  # fmt: skip
        for table in (*(fact.table for fact in FACTS), bodies.TABLE):
            self._rows.labels(table)
            self._bytes.labels(table)
        for fact in FACTS:
            self._lost.labels(fact.table)
        for step in ("stored", "committed"):
            self._retries.labels(step)
        self._dead_letters.labels(STAGE, "caller_undecodable")
        registry.register(_Lag(settings, self))

    def inserted(self, table: str, rows: int, size: int, seconds: float) -> None:
        """An insert of `size` bytes was taken."""
        self._rows.labels(table).inc(rows)
        self._bytes.labels(table).inc(size)
        self._batch_rows.observe(rows)
        self._insert_seconds.observe(seconds)

    def stored(self, oldest_ms: int) -> None:
        """A batch is stored and committed; its oldest record is from `oldest_ms`."""
        self._freshness.observe(max(0.0, time.time() - oldest_ms / 1000))

    def rejected(self, count: int) -> None:
        """Records without a row are in the dead letters."""
        self._dead_letters.labels(STAGE, "caller_undecodable").inc(count)

    def retried(self, step: str) -> None:
        """A batch could not be `stored` or `committed`."""
        self._retries.labels(step).inc()

    def lost(self, table: str, count: int) -> None:
        """Kafka no longer holds so many records that were to become rows."""
        self._lost.labels(table).inc(count)


class _Lag(Collector):
    """How far the sink is behind the log, asked of Kafka when Prometheus reads the page."""

    def __init__(self, settings: Settings, metrics: SinkMetrics) -> None:
        # It joins no group. An admin client's answers were seen not to come at all.
        self._config = {**librdkafka(settings), "group.id": "millstream-metrics", "log_level": 0}
        self._metrics = metrics
        self._reader: Consumer | None = None
        # Pages are made on threads, several at once.
        self._one_at_a_time = threading.Lock()

    def describe(self) -> list[Metric]:
        return [*self._families()]

    def collect(self) -> Iterator[Metric]:
        records, seconds, partitions = self._families()
        places = self._metrics.places()
        now_ms = time.time() * 1000
        waiting: dict[str, float] = defaultdict(float)
        assigned: dict[str, int] = defaultdict(int)
        for place in places:
            age = (now_ms - place.waiting_since_ms) / 1000 if place.waiting_since_ms is not None else 0.0
            waiting[place.topic] = max(waiting[place.topic], age)
            assigned[place.topic] += 1
        for topic, age in waiting.items():
            seconds.add_metric([topic], age)
            partitions.add_metric([topic], assigned[topic])
        with self._one_at_a_time:
            lags = self._lag(places)
        for topic, lag in lags.items():
            records.add_metric([topic], lag)
        yield records
        yield seconds
        yield partitions

    def _families(self) -> tuple[GaugeMetricFamily, GaugeMetricFamily, GaugeMetricFamily]:
        return (
            GaugeMetricFamily("millstream_sink_lag_records", "Records of the log not stored yet.", labels=["topic"]),
            GaugeMetricFamily(
                "millstream_sink_lag_seconds", "Age of the oldest record read and not stored.", labels=["topic"]
            ),
            GaugeMetricFamily("millstream_sink_partitions", "Partitions assigned to this sink.", labels=["topic"]),
        )

    def _lag(self, places: list[Place]) -> dict[str, int]:
        """Records behind by topic; nothing while Kafka does not answer."""
        self._reader = self._reader or Consumer(self._config)
        lag: dict[str, int] = defaultdict(int)
        try:
            for place in places:
                at = TopicPartition(place.topic, place.partition)
                _, end = self._reader.get_watermark_offsets(at, timeout=KAFKA_SECONDS)
                lag[place.topic] += max(0, end - place.next_offset)
        except KafkaException:
            return {}
        return lag
