"""`millstream rebuild` on real Kafka and ClickHouse: the same rows again, and the sink goes on as if nothing had been."""

from __future__ import annotations

import random

import pytest
from rich.progress import Progress

from cli.errors import CommandError
from cli.rebuild import rebuild
from core.topics import REQUESTS, USAGE
from schemas.cloudevents import headers
from tests.examples import NOON, request
from tests.stack.sink_world import MONTH_END, TRACE, MakeWorld, World, eventually


def stop_sinks(here: World) -> None:
    """End every sink as an operator does."""
    for child in here.processes:
        child.terminate()
        child.wait(20)


def rebuilt(here: World, *, drop: bool = False) -> dict[str, tuple[int, bool, int]]:
    """Rows, whether equal to before, and rows dropped, by table."""
    found = rebuild(here.settings, drop, Progress(disable=True))
    return {table.table: (table.after.rows, table.before == table.after, table.dropped) for table in found}


def test_the_same_rows_come_again(world: MakeWorld) -> None:
    """From broken and from empty tables come the facts, rollups and bodies that were there, and a sink goes on behind them."""
    here = world(sink_batch_rows=50)
    rng = random.Random(21)
    here.send_usage(rng, 400, again=0.1, around=(NOON, MONTH_END))
    asked = request("How tall is Mont Blanc?")
    here.send("LlmRequest", REQUESTS.name, dict(asked), "ce-1")
    here.send_raw(USAGE.name, b"no event", headers("LlmUsage", "broken", "test", NOON, TRACE), "key")
    here.producer.flush()
    here.start_sink()
    eventually(lambda: here.count("requests") == 1 and here.stored_up_to_the_end())
    with pytest.raises(CommandError, match="stop them with SIGTERM"):
        rebuilt(here)
    stop_sinks(here)
    assert rebuilt(here)["usage"] == (400, True, 0)
    here.assert_store_equals_log()
    assert here.count("bodies") == 1
    with pytest.raises(CommandError, match=r"MILLSTREAM_BODIES=off.*--yes"):
        rebuild(here.settings.model_copy(update={"bodies": "off"}), False, Progress(disable=True))
    assert here.count("bodies") == 1
    here.rows("TRUNCATE TABLE usage_by_hour")
    here.rows("ALTER TABLE usage DELETE WHERE kafka_offset % 7 = 0 SETTINGS mutations_sync = 1")
    assert rebuilt(here)["usage"] == (400, False, 0)
    here.assert_store_equals_log()
    here.rows("DROP DATABASE {name:Identifier} SYNC", name=here.settings.clickhouse_database)
    here.client = None
    assert rebuilt(here)["usage"][0] == 400
    here.assert_store_equals_log()
    here.send_usage(rng, 100, again=0.2)
    here.start_sink()
    eventually(lambda: here.count() == 500 and here.stored_up_to_the_end())
    here.assert_store_equals_log()
    assert [
        row
        for row in here.rows("SHOW DATABASES")
        if "rebuild" in row[0] and here.settings.clickhouse_database in row[0]
    ] == []


def test_rows_that_the_topics_no_longer_hold_are_not_dropped_silently(world: MakeWorld) -> None:
    """Where the log begins after the oldest rows, nothing is changed until the operator says so."""
    from confluent_kafka import TopicPartition
    from confluent_kafka.admin import AdminClient

    here = world(partitions=1)
    here.send_usage(random.Random(22), 60)
    here.start_sink()
    eventually(here.stored_up_to_the_end)
    stop_sinks(here)
    admin = AdminClient({"bootstrap.servers": here.kafka.bootstrap})
    cut = TopicPartition(here.settings.topic_prefix + USAGE.name, 0, 25)
    for done in admin.delete_records([cut]).values():
        done.result()
    with pytest.raises(CommandError, match=r"25 rows of usage.*--yes"):
        rebuilt(here)
    assert here.count() == 60
    assert rebuilt(here, drop=True)["usage"] == (35, True, 25)
    assert here.count() == 35
