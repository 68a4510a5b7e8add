"""Commits and redelivery on Apache Kafka: kill -9 with records in flight, ours beside Faust's own tracker."""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from cli.running import Running
from local.processes import Child
from tests.stack.asking import eventually

#: name, offset committed beforehand, values produced; None is a transaction's end mark, a gap in the offsets.
CASES: list[tuple[str, int | None, list[str | None]]] = [
    ("fresh group, slow head", None, ["slow", "fast", "fast", "fast"]),
    ("committed zero, slow head", 0, ["slow", "fast", "fast", "fast"]),
    ("mid-log, slow head", 3, ["old", "old", "old", "slow", "fast", "fast"]),
    ("gapped log, slow head before the gap", None, ["fast", "slow", None, "fast", None, "fast"]),
    ("several slow heads", None, ["fast", "slow", "slow", "fast", "slow", "fast"]),
]


class Log:
    """A topic of one partition with the case's records, and its group."""

    def __init__(self, bootstrap: str, committed: int | None, values: list[str | None]) -> None:
        self.bootstrap = bootstrap
        self.topic = self.group = f"tracker-{uuid.uuid4()}"
        self.offsets: dict[int, str] = {}
        client = AdminClient({"bootstrap.servers": bootstrap})
        client.create_topics([NewTopic(self.topic, 1, 1)])[self.topic].result(20)
        self._produce(values)
        if committed is not None:
            consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": self.group})
            consumer.commit(offsets=[TopicPartition(self.topic, 0, committed)], asynchronous=False)
            consumer.close()

    def _produce(self, values: list[str | None]) -> None:
        # Each run between two end marks is a transaction of its own: its mark takes an offset and is no record.
        gapped = None in values
        config = {"bootstrap.servers": self.bootstrap} | ({"transactional.id": self.topic} if gapped else {})
        producer = Producer(config)
        if gapped:
            producer.init_transactions(20)
            producer.begin_transaction()
        for value in values:
            if value is None:
                producer.commit_transaction(20)
                producer.begin_transaction()
                continue
            producer.produce(
                self.topic,
                value.encode(),
                on_delivery=lambda _, m: self.offsets.update({m.offset(): m.value().decode()}),
            )
        if gapped:
            producer.commit_transaction(20)
        producer.flush(20)

    def committed(self) -> int:
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": self.group})
        found: int = consumer.committed([TopicPartition(self.topic, 0)], timeout=10)[0].offset
        consumer.close()
        return found

    @property
    def head(self) -> int:
        """The first record that stays in flight."""
        return min(offset for offset, value in self.offsets.items() if value == "slow")


@pytest.fixture
def start(pipeline: Running, tmp_path: Path) -> Callable[[Log, str, str], Child]:
    def begin(log: Log, tracker: str, name: str) -> Child:
        arguments = [log.bootstrap, log.topic, log.group, str(tmp_path / name), tracker]
        return Child(
            [sys.executable, "-m", "tests.stack.tracker_worker", *arguments],
            pipeline.environment, log_path=tmp_path / f"{name}.log", name=name, cwd=Path(__file__).parents[3],
        )  # fmt: skip

    return begin


def seen(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def run_until_killed(log: Log, start: Callable[..., Child], tracker: str, path: Path, first: int) -> int:
    """Let a worker get every record, leave it time to commit, kill it; the offset it committed."""
    child = start(log, tracker, path.name)
    wanted = {offset for offset in log.offsets if offset >= first}
    assert eventually(lambda: wanted <= set(seen(path)), 40), child.log_tail()
    time.sleep(1.0)
    child.kill()
    return log.committed()


@pytest.mark.parametrize(("name", "committed", "values"), CASES, ids=[c[0] for c in CASES])
def test_what_was_in_flight_at_a_kill_is_delivered_again(
    name: str, committed: int | None, values: list[str | None], pipeline: Running, start: Callable[..., Child], tmp_path: Path
) -> None:  # fmt: skip
    """After kill -9 the group stands at the first unfinished record, and the next worker gets all from there and no earlier."""
    log = Log(pipeline.settings.kafka_bootstrap, committed, values)
    kept = run_until_killed(log, start, "ours", tmp_path / "before", committed or 0)
    assert max(kept, committed or 0) <= log.head
    (tmp_path / "after.go").touch()
    child = start(log, "ours", "after")
    again = {offset for offset in log.offsets if offset >= log.head}
    assert eventually(lambda: again <= set(seen(tmp_path / "after")), 40), child.log_tail()
    last = max(log.offsets) + 1
    assert eventually(lambda: log.committed() >= last), log.committed()
    child.kill()
    assert min(seen(tmp_path / "after")) == log.head


@pytest.mark.parametrize("committed", [None, 0, 2], ids=["nothing committed", "zero committed", "some committed"])
def test_records_dropped_in_a_rebalance_are_read_again(
    committed: int | None, pipeline: Running, start: Callable[..., Child], tmp_path: Path
) -> None:  # fmt: skip
    """Faust drops what it has fetched when a rebalance begins, and goes back; also where no offset was committed before."""
    log = Log(pipeline.settings.kafka_bootstrap, committed, ["slow"] * 6)
    wanted = list(range(committed or 0, 6))
    child = start(log, "ours", "seeking")
    assert eventually(lambda: seen(tmp_path / "seeking") == wanted, 40), child.log_tail()
    (tmp_path / "seeking.seek").touch()
    assert eventually(lambda: seen(tmp_path / "seeking") == wanted * 2, 40), (
        seen(tmp_path / "seeking"),
        child.log_tail(),
    )
    (tmp_path / "seeking.go").touch()
    assert eventually(lambda: log.committed() == 6, 40), log.committed()
    child.kill()


def test_fausts_own_tracker_loses_records_in_the_same_cases(
    pipeline: Running, start: Callable[..., Child], tmp_path: Path
) -> None:
    """The stock tracker commits past the slow head after a fresh start and across a gap: those records are never seen again."""
    lost = []
    for number in (0, 3, 4):
        name, committed, values = CASES[number]
        log = Log(pipeline.settings.kafka_bootstrap, committed, values)
        kept = run_until_killed(log, start, "faust", tmp_path / f"stock-{number}", committed or 0)
        if kept > log.head:
            lost.append(name)
    assert len(lost) >= 2, lost
