"""A sink whose store refuses or dawdles, whose broker goes away, whose log loses its beginning: it says so, and heals."""

from __future__ import annotations

import json
import random
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from core.topics import REQUESTS, USAGE
from local.processes import free_port
from sinks.consumer import GROUP, Sink
from sinks.metrics import SinkMetrics
from sinks.partition import Partition
from sinks.window import Window
from tests.examples import request
from tests.stack.scrape import get, page, total
from tests.stack.sink_dying import Doom
from tests.stack.sink_faults import Nursery, memory_of, nurseries
from tests.stack.sink_world import MakeWorld, World, eventually

READ_ONLY = ("table_readonly = 1", "readonly mode")
NO_SPACE = ("min_free_disk_bytes_to_perform_insert = 1000000000000000000", "enough free space")
TOO_MANY_PARTS = ("parts_to_delay_insert = 1, parts_to_throw_insert = 1", "Too many parts")
#: Far less than is sent, far more than a batch takes.
GROWTH = 100_000_000


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    """Where sinks that die come from."""
    with nurseries(1) as free:
        yield free.get()


def alter(here: World, change: str, table: str = "usage") -> None:
    """Change a table as an operator does."""
    here.rows(f"ALTER TABLE {table} {change}")


def refuse(here: World, settings: str, table: str = "usage") -> None:
    """From now on the server refuses inserts."""
    alter(here, f"MODIFY SETTING {settings}", table)


def accept(here: World, settings: str, table: str = "usage") -> None:
    """The server takes inserts again."""
    names = ", ".join(part.partition("=")[0].strip() for part in settings.split(","))
    alter(here, f"RESET SETTING {names}", table)


def readiness(here: World) -> tuple[int, str]:
    """Status and reason of `/readyz`."""
    status, body = get(f"http://127.0.0.1:{here.settings.metrics_port}/readyz")
    return status, json.loads(body).get("reason") or ""


def metric(here: World, name: str, **labels: str) -> float:
    """What the sink's page says of a metric."""
    return total(page(f"http://127.0.0.1:{here.settings.metrics_port}"), name, **labels)


def place(here: World, offset: int = 0) -> TopicPartition:
    """A place in the first partition of the usage topic."""
    return TopicPartition(here.settings.topic_prefix + USAGE.name, 0, offset)


def recorded(here: World) -> str:
    """The bounds of the batch under way in the first partition, '' without one."""
    reader = Consumer({"bootstrap.servers": here.kafka.bootstrap, "group.id": here.settings.topic_prefix + GROUP})
    (committed,) = reader.committed([place(here)], timeout=10)
    reader.close()
    return committed.metadata or ""


def delete_to(here: World, offset: int) -> None:
    """Let retention take the records before `offset`."""
    admin = AdminClient({"bootstrap.servers": here.kafka.bootstrap})
    for done in admin.delete_records([place(here, offset)]).values():
        done.result()


def offsets(here: World) -> list[int]:
    """The offsets of the stored usage events."""
    return [offset for (offset,) in here.rows("SELECT kafka_offset FROM usage ORDER BY kafka_offset")]


def heals(here: World, sink: subprocess.Popen[bytes]) -> None:
    """Everything is stored, once, by the same process, and it is ready again."""
    eventually(here.stored_up_to_the_end, 60)
    here.assert_store_equals_log()
    eventually(lambda: readiness(here)[0] == 200)
    assert sink.poll() is None


@pytest.mark.parametrize(
    ("settings", "said", "table"),
    [
        (*READ_ONLY, "usage"),
        (*READ_ONLY, "usage_by_hour"),
        (*NO_SPACE, "usage"),
        (*TOO_MANY_PARTS, "usage"),
    ],
)
def test_a_store_that_refuses(world: MakeWorld, settings: str, said: str, table: str) -> None:
    """Read-only, out of disk, too many parts: the sink is not ready and says why, counts retries, and stores all once it can."""
    here = world(partitions=2, sink_batch_rows=50, metrics_port=free_port())
    rng = random.Random(31)
    sink = here.start_sink()
    here.send_usage(rng, 100)
    heals(here, sink)
    refuse(here, settings, table)
    here.send_usage(rng, 400, again=0.1)
    eventually(lambda: readiness(here)[0] == 503 and said in readiness(here)[1])
    eventually(lambda: metric(here, "millstream_sink_retries_total", step="stored") >= 2)
    assert get(f"http://127.0.0.1:{here.settings.metrics_port}/healthz")[0] == 200
    accept(here, settings, table)
    heals(here, sink)


def test_a_store_that_refuses_much(world: MakeWorld) -> None:
    """While a table is read-only, the prompts that keep arriving stay in Kafka, not in the sink's memory."""
    here = world(partitions=1, metrics_port=free_port())
    sink = here.start_sink()
    here.send("LlmRequest", REQUESTS.name, dict(request("First.")), "first")
    here.producer.flush()
    eventually(lambda: here.count("requests") == 1)
    before = memory_of(sink.pid)
    refuse(here, READ_ONLY[0], "requests")
    for number in range(300):
        here.send("LlmRequest", REQUESTS.name, dict(request("x" * 900_000)), str(number))
    here.producer.flush()
    most = 0

    def retried() -> bool:
        nonlocal most
        most = max(most, memory_of(sink.pid))
        return metric(here, "millstream_sink_retries_total", step="stored") >= 4

    eventually(retried)
    assert most - before < GROWTH
    accept(here, READ_ONLY[0], "requests")
    eventually(lambda: here.count("requests") == here.count("bodies") == 301, 60)


@pytest.mark.parametrize("patience", [60.0, 2.0])
def test_a_slow_store(world: MakeWorld, patience: float) -> None:
    """Inserts that take longer than the flush interval, and longer than the sink waits for them, are rows once."""
    here = world(partitions=2, sink_batch_rows=50, metrics_port=free_port())
    rng = random.Random(32)
    alter(here, "ADD CONSTRAINT slow CHECK sleep(3) = 0")
    sink = here.start_sink(insert_seconds=patience)
    here.send_usage(rng, 150, again=0.1)
    eventually(lambda: here.count() > 0)
    if patience < 3:
        eventually(lambda: readiness(here)[0] == 503 and "timed out" in readiness(here)[1])
        assert metric(here, "millstream_sink_retries_total", step="stored") > 0
    alter(here, "DROP CONSTRAINT slow")
    heals(here, sink)


class Astray(Sink):
    """A sink whose broker does not know a partition that it was given, as while leaders change."""

    def _resumed(self, consumer: Consumer, place: TopicPartition, window: Window | None) -> Partition:
        consumer.get_watermark_offsets(TopicPartition(place.topic, 99), timeout=10)
        raise AssertionError("There is no such partition.")


def test_kafka_failing_during_an_assignment(world: MakeWorld) -> None:
    """What Kafka says while partitions are assigned comes out as the exception after which a sink starts afresh."""
    here = world(partitions=1)
    sink = Astray(here.settings, here.codec, SinkMetrics(here.settings))
    with pytest.raises(KafkaException):
        sink.run(lambda: False)
    sink.close()


def test_kafka_away_in_the_middle_of_a_batch(world: MakeWorld) -> None:
    """A broker that dies during an insert and comes back finds the batch stored once, and the rest after it."""
    here = world(partitions=1, sink_batch_rows=50, metrics_port=free_port())
    rng = random.Random(33)
    sink = here.start_sink()
    here.send_usage(rng, 50)
    heals(here, sink)
    alter(here, "ADD CONSTRAINT slow CHECK sleep(2) = 0")
    here.send_usage(rng, 50)
    eventually(lambda: recorded(here) == "50-99")
    here.kafka.kill()
    eventually(lambda: here.count() == 100)
    eventually(lambda: readiness(here) == (503, f"Kafka at {here.kafka.bootstrap} does not answer."))
    alter(here, "DROP CONSTRAINT slow")
    here.kafka.start()
    here.send_usage(rng, 100)
    heals(here, sink)


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize(("low", "left"), [(40, range(40, 120)), (110, range(110, 120)), (120, range(0))])
def test_retention_in_the_middle_of_a_recorded_batch(
    world: MakeWorld, nursery: Nursery, tmp_path: Path, stored: bool, low: int, left: range
) -> None:
    """When the log loses a part of a batch that a dead sink had begun, or more, the next one says what is gone and goes on."""
    here = world(partitions=1, sink_batch_rows=100, sink_batch_seconds=60.0, metrics_port=free_port())
    rng = random.Random(34)
    here.send_usage(rng, 120)
    doomed = here.settings.model_copy(update={"metrics_port": 0}).model_dump_json(exclude_defaults=True)
    nursery.start(Doom(doomed, "after_insert") if stored else Doom(doomed, "during_insert", share=0.5))
    assert nursery.status() == -signal.SIGKILL
    assert recorded(here) == "0-99"
    assert here.count() == (100 if stored else 0)
    delete_to(here, low)
    here.settings = here.settings.model_copy(update={"sink_batch_seconds": 0.2})
    log = tmp_path / "sink.log"
    sink = here.start_sink(log=log)
    eventually(here.stored_up_to_the_end)
    assert offsets(here) == (sorted({*range(100), *left}) if stored else [*left])
    assert metric(here, "millstream_sink_lost_records_total", table="usage") == low
    assert f"deleted {low} records of {place(here).topic} partition 0" in log.read_text()
    assert f"offsets 0 to {low - 1}; a batch up to 99 was begun, and may be stored" in log.read_text()
    here.send_usage(rng, 30)
    eventually(here.stored_up_to_the_end)
    assert offsets(here)[-30:] == [*range(120, 150)]
    assert sink.poll() is None


def test_retention_behind_the_back_of_a_running_sink(world: MakeWorld, tmp_path: Path) -> None:
    """What the log loses before a waiting sink has read it is named and passed over; the batch in its hands is stored."""
    here = world(partitions=1, sink_batch_rows=10, metrics_port=free_port())
    rng = random.Random(35)
    log = tmp_path / "sink.log"
    sink = here.start_sink(log=log)
    here.send_usage(rng, 10)
    heals(here, sink)
    refuse(here, READ_ONLY[0])
    here.send_usage(rng, 10)
    eventually(lambda: metric(here, "millstream_sink_retries_total", step="stored") >= 2)
    here.send_usage(rng, 80)
    delete_to(here, 100)
    accept(here, READ_ONLY[0])
    eventually(here.stored_up_to_the_end, 60)
    assert offsets(here)[:20] == [*range(20)]
    lost = metric(here, "millstream_sink_lost_records_total", table="usage")
    assert lost == 100 - len(offsets(here)) > 0
    assert f"deleted {int(lost)} records" in log.read_text()
    here.send_usage(rng, 20)
    eventually(here.stored_up_to_the_end)
    assert offsets(here)[-20:] == [*range(100, 120)]
    assert sink.poll() is None
