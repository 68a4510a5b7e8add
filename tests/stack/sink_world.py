"""A place for sink tests: real Kafka and ClickHouse, topics and tables of one's own, and what the log says they should hold."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clickhouse_connect.driver.client import Client
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from config.settings import Settings
from core.topics import USAGE, all_topics
from local.broker import KafkaBroker
from local.clickhouse import ClickHouseServer
from schemas.cloudevents import CE_ID, headers
from schemas.codec import Codec, Undecodable
from schemas.events import Tokens
from sinks.consumer import GROUP
from sinks.tables import migrate_clickhouse
from sinks.writer import INSERT_SECONDS, connect
from tests.examples import NOON

SINK = """
import signal, sys, threading
from config.settings import Settings
from schemas.codec import Codec
from sinks import writer
from sinks.consumer import run
from sinks.metrics import SinkMetrics
from sinks.metrics_server import Readiness, serving
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
settings, writer.INSERT_SECONDS = Settings.model_validate_json(sys.argv[1]), float(sys.argv[2])
metrics = SinkMetrics(settings)
with serving(settings, metrics.registry, Readiness(settings, metrics).problem):
    run(settings, stop.is_set, Codec(), metrics)
"""
TRACE = b"00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-01"
MINUTE = 60_000_000
#: A minute and a half before November 2026 ends, in microseconds since 1970.
MONTH_END = 1_796_083_200_000_000 - 90_000_000
DIMENSIONS = ("tenant", "user", "project", "task", "provider", "model", "status")


def eventually(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait until `holds()`, or fail."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "It did not come about in time."
        time.sleep(0.1)


def usage(rng: random.Random, around: Sequence[int] = (NOON,), **changes: Any) -> dict[str, Any]:
    """A usage event with random dimensions, tokens and cost, created within three minutes after one of the times."""
    nothing = dict.fromkeys(Tokens.__annotations__)
    created = rng.choice(around) + rng.randrange(3 * MINUTE)
    return {
        "attempt_id": str(uuid.UUID(int=rng.getrandbits(128))), "request_id": str(uuid.UUID(int=rng.getrandbits(128))),
        "tenant": rng.choice(("acme", "globex")), "user": rng.choice((None, "ana", "bo")), "api_key_id": None,
        "project": None, "tags": {"team": "search"}, "task": "extraction", "plan": "pro",
        "provider": "openai", "model": rng.choice(("gpt-5", "gpt-5-mini")), "response_model": None,
        "provider_response_id": None, "attempt": 1, "reason": "first", "adjusts": None, "status": "succeeded", "error_code": None,
        "provider_status": None, "tokens": nothing | {"input_uncached": rng.randrange(5_000), "output_text": 7},
        "costs": nothing, "cost_nano_usd": rng.choice((None, 0, rng.randrange(10**9))), "cost_status": "priced",
        "reserved_nano_usd": 10, "price_source": "genai-prices 0.2.3", "price_date": 20_778,
        "provider_usage": None, "received_chars": None, "queue_us": 5, "first_token_us": None, "provider_us": rng.randrange(10**6),
        "total_us": None, "created_at": created, "admitted_at": created + 1, "started_at": created + 2,
        "first_token_at": None, "finished_at": created + 3, "route": None, "prompt_version": None,
        "credential_id": None, "credential_owner": "platform", "saved_nano_usd": None, "unchecked": False, **changes,
    }  # fmt: skip


MakeWorld = Callable[..., "World"]


@dataclass
class World:
    """One test's topics and tables; the two servers are shared."""

    kafka: KafkaBroker
    clickhouse: ClickHouseServer
    settings: Settings
    codec: Codec
    processes: list[subprocess.Popen[bytes]]
    producer: Producer
    client: Client | None = None

    @classmethod
    def make(cls, kafka: KafkaBroker, clickhouse: ClickHouseServer, partitions: int, **changes: Any) -> World:
        """Fresh topics and a migrated, empty database."""
        name = f"t{uuid.uuid4().hex[:8]}"
        settings = Settings(
            kafka_bootstrap=kafka.bootstrap, clickhouse_url=clickhouse.url, clickhouse_database=name,
            topic_prefix=f"{name}.", session_timeout_seconds=1.0, **{"sink_batch_seconds": 0.2, **changes},
        )  # fmt: skip
        migrate_clickhouse(settings)
        admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
        topics = [NewTopic(topic.on(settings.topic_prefix), partitions, 1) for topic in all_topics(())]
        for made in admin.create_topics(topics).values():
            made.result()
        producer = Producer({"bootstrap.servers": kafka.bootstrap, "enable.idempotence": True, "log_level": 0})
        return cls(kafka, clickhouse, settings, Codec(), [], producer)

    def start_sink(self, insert_seconds: float = INSERT_SECONDS, log: Path | None = None) -> subprocess.Popen[bytes]:
        """Another sink process, with so much patience for an insert; what it says goes to `log`."""
        values = self.settings.model_dump_json(exclude_defaults=True)
        command = [sys.executable, "-c", SINK, values, str(insert_seconds)]
        with open(log or os.devnull, "ab") as said:
            child = subprocess.Popen(
                command, env={**os.environ, "PYTHONPATH": "."}, stderr=said if log is not None else None
            )
        self.processes.append(child)
        return child

    def end(self) -> None:
        """End every sink process."""
        for child in self.processes:
            if child.poll() is None:
                child.send_signal(signal.SIGCONT)
                child.kill()
            child.wait()
        if self.client is not None:
            self.client.close()

    def drop(self) -> None:
        """Remove the topics and the tables."""
        self.rows("DROP DATABASE {name:Identifier}", name=self.settings.clickhouse_database)
        admin = AdminClient({"bootstrap.servers": self.kafka.bootstrap})
        for dropped in admin.delete_topics([t.on(self.settings.topic_prefix) for t in all_topics(())]).values():
            dropped.result()

    def send(self, record: str, topic: str, event: dict[str, Any], ce_id: str, key: str | None = None) -> None:
        """Produce one event."""
        value = self.codec.encode(record, event)
        self.send_raw(topic, value, headers(record, ce_id, "test", NOON, TRACE), key or event["request_id"])

    def send_raw(self, topic: str, value: bytes | None, header: list[tuple[str, bytes]], key: str) -> None:
        """Produce one record as it stands."""
        self.producer.produce(self.settings.topic_prefix + topic, value, key=key.encode(), headers=header)
        self.producer.poll(0)

    def send_usage(self, rng: random.Random, count: int, again: float = 0.0, around: Sequence[int] = (NOON,)) -> None:
        """Produce `count` usage events, a share `again` of them a second time a little later."""
        later: list[dict[str, Any]] = []
        for _ in range(count):
            event = usage(rng, around)
            self.send("LlmUsage", USAGE.name, event, event["attempt_id"])
            if rng.random() < again:
                later.append(event)
            if later and rng.random() < again:
                event = later.pop()
                self.send("LlmUsage", USAGE.name, event, event["attempt_id"])
        self.producer.flush()

    def log(self, topic: str) -> list[Message]:
        """Everything that stands in a topic now."""
        name = self.settings.topic_prefix + topic
        consumer = Consumer({"bootstrap.servers": self.kafka.bootstrap, "group.id": "reader", "log_level": 0})
        partitions = consumer.list_topics(name).topics[name].partitions
        ends = {number: consumer.get_watermark_offsets(TopicPartition(name, number))[1] for number in partitions}
        consumer.assign([TopicPartition(name, number, 0) for number in partitions])
        found: list[Message] = []
        while len(found) < sum(ends.values()):
            found += consumer.consume(10_000, 0.1)
        consumer.close()
        return sorted(found, key=lambda message: (message.partition(), message.offset()))

    def usage_of_the_log(self) -> list[tuple[int, int, str, dict[str, Any]]]:
        """Partition, offset, id and event of every usage event that should be a fact: the first of each id."""
        seen: set[bytes] = set()
        facts = []
        for message in self.log(USAGE.name):
            event_id = dict(message.headers() or [])[CE_ID]
            if event_id in seen:
                continue
            seen.add(event_id)
            try:
                event = self.codec.decode("LlmUsage", message.value())
            except Undecodable:
                continue
            facts.append((message.partition(), message.offset(), event_id.decode(), event))
        return facts

    def rows(self, sql: str, **parameters: str) -> list[tuple[Any, ...]]:
        """What a query gives in this world's database."""
        if self.client is None:
            self.client = connect(self.settings)
        return [tuple(row) for row in self.client.query(sql, parameters).result_rows]

    def stored_up_to_the_end(self) -> bool:
        """Whether the sink has committed every usage event that stands in the log now."""
        settings, name = self.settings, self.settings.topic_prefix + USAGE.name
        reader = Consumer({"bootstrap.servers": settings.kafka_bootstrap, "group.id": settings.topic_prefix + GROUP})
        places = [TopicPartition(name, number) for number in reader.list_topics(name).topics[name].partitions]
        committed = reader.committed(places, timeout=10)
        done = all(p.offset == reader.get_watermark_offsets(p)[1] and not p.metadata for p in committed)
        reader.close()
        return done

    def count(self, table: str = "usage") -> int:
        """Rows of a table."""
        return int(self.rows("SELECT count() FROM {table:Identifier}", table=table)[0][0])

    def assert_store_equals_log(self) -> None:
        """Facts and rollups hold exactly what the log holds."""
        facts = self.usage_of_the_log()
        stored = self.rows(
            "SELECT kafka_partition, kafka_offset, ce_id, request_id, user, tokens_input_uncached, cost_nano_usd, "
            "toUnixTimestamp64Micro(created_at) FROM usage ORDER BY kafka_partition, kafka_offset"
        )
        assert stored == [
            (
                *place, event["request_id"], event["user"] or "", event["tokens"]["input_uncached"],
                event["cost_nano_usd"], event["created_at"],
            )
            for *place, event in facts
        ]  # fmt: skip
        calls, tokens, cost = Counter[Any](), Counter[Any](), Counter[Any]()
        for *_, event in facts:
            key = (event["created_at"] // MINUTE * 60, *(event[name] or "" for name in DIMENSIONS))
            calls[key] += 1
            tokens[key] += event["tokens"]["input_uncached"]
            cost[key] += event["cost_nano_usd"] or 0
        rollup = self.rows(
            "SELECT toUnixTimestamp(minute), tenant, user, project, task, provider, model, status, sum(calls), "
            "sum(tokens_input_uncached), sum(cost_nano_usd) FROM usage_by_minute "
            "GROUP BY minute, tenant, user, project, task, provider, model, status"
        )
        assert {row[:8]: row[8:] for row in rollup} == {key: (calls[key], tokens[key], cost[key]) for key in calls}
        for name, begins in (("hour", "toStartOfHour"), ("day", "toDate")):
            figures = "tenant, user, model, status, sum(calls), sum(tokens_input_uncached), sum(cost_nano_usd)"
            by = "GROUP BY time, tenant, user, model, status ORDER BY time, tenant, user, model, status"
            coarse = self.rows(f"SELECT {name} AS time, {figures} FROM usage_by_{name} {by}")
            assert coarse == self.rows(f"SELECT {begins}(minute) AS time, {figures} FROM usage_by_minute {by}")
        hours, timed = (
            self.rows(f"SELECT hour, tenant, model, sum(calls) FROM {table} GROUP BY 1, 2, 3 ORDER BY 1, 2, 3")
            for table in ("usage_by_hour", "latency_by_hour")
        )
        assert timed == hours
