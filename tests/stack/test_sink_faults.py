"""The sink at its limits: killed at every point of its work, batches of every size, a store that is away under load."""

from __future__ import annotations

import random

from core.topics import USAGE
from local.broker import KafkaBroker
from local.clickhouse import ClickHouseServer
from tests.examples import NOON
from tests.stack.sink_dying import POINTS
from tests.stack.sink_faults import store_away, survive_all
from tests.stack.sink_world import MONTH_END, MakeWorld, World, eventually, usage

YEAR = 365 * 24 * 3_600 * 1_000_000
SEEDS = range(1_000, 1_010)


def test_kills_at_every_point(servers: tuple[KafkaBroker, ClickHouseServer]) -> None:
    """Ten seeds of sinks killed before and after recording, in and after the insert, and after the commit: all is stored once."""
    deaths = survive_all(*servers, SEEDS, abreast=3)
    assert all(deaths[point] for point in POINTS)


def test_a_batch_of_ten_thousand_rows_and_batches_of_one(world: MakeWorld) -> None:
    """Ten thousand rows go in with one insert, forty rows with an insert each, and all are stored once."""
    for rows, count in ((10_000, 10_000), (1, 40)):
        here = world(partitions=1, sink_batch_rows=rows, sink_batch_seconds=10.0)
        here.send_usage(random.Random(rows), count)
        here.start_sink()
        eventually(here.stored_up_to_the_end)
        here.assert_store_equals_log()
        if rows > 1:
            assert inserts(here) == 1


def inserts(here: World) -> int:
    """How many inserts the rows of the usage table came with, told by their time of arrival."""
    return int(here.rows("SELECT uniqExact(ingested_at) FROM usage")[0][0])


def test_a_batch_over_the_end_of_a_month_with_late_events(world: MakeWorld) -> None:
    """One batch whose rows fall on both sides of a month's end, and a year before it, is stored whole and once."""
    here = world(partitions=1, sink_batch_rows=1_000, sink_batch_seconds=10.0)
    times = (MONTH_END, NOON, MONTH_END - YEAR)
    here.send_usage(random.Random(8), 1_000, around=times)
    here.start_sink()
    eventually(here.stored_up_to_the_end)
    here.assert_store_equals_log()
    assert inserts(here) == 1
    months = here.rows("SELECT DISTINCT toYYYYMM(created_at) FROM usage")
    assert {202611, 202612, 202511} <= {month for (month,) in months}


def test_republished_events_interleaved_over_partitions(world: MakeWorld) -> None:
    """Events of four partitions, each published up to four times with others between, are rows once, in small batches."""
    here = world(partitions=4, sink_batch_rows=30)
    rng = random.Random(9)
    once = [usage(rng) for _ in range(300)]
    published = [event for event in once for _ in range(rng.randrange(1, 5))]
    rng.shuffle(published)
    for event in published:
        here.send("LlmUsage", USAGE.name, event, event["attempt_id"])
    here.producer.flush()
    here.start_sink()
    eventually(here.stored_up_to_the_end)
    assert here.count() == len(once)
    here.assert_store_equals_log()


def test_clickhouse_away_under_load(world: MakeWorld) -> None:
    """With ClickHouse away for 6 seconds at 500 events a second nothing is lost, and the sink's memory stays bounded."""
    away = store_away(world(), seconds=6, rate=500)
    assert away.events >= 3_000
