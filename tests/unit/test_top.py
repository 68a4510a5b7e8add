"""The live view as it is drawn, and what workers' pages say in it."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from cli.top.figures import Freshness, Lane, Look, Minute
from cli.top.groups import groups
from cli.top.view import draw
from cli.top.workers import fill
from config.settings import PROVIDER_NAMES, Settings
from core.topics import REQUESTS, USAGE
from sinks.consumer import GROUP
from sinks.rows import FACTS
from streams.pipeline import ADMIT, METER, lane

NOW = 1_800_000_000_000_000


def drawn(look: Look, width: int = 80) -> str:
    """A look as a terminal of this width shows it."""
    out = io.StringIO()
    Console(width=width, file=out, color_system=None).print(draw(look))
    return out.getvalue()


def test_the_groups_are_those_of_the_pipeline() -> None:
    """The view asks for the consumer groups that the stages and the sink really use, each with the topics it reads."""
    found = groups(Settings(topic_prefix="corp."), [fact.topic for fact in FACTS])
    stages = [ADMIT, *map(lane, PROVIDER_NAMES), METER]
    assert [found[stage.group.removeprefix("millstream-")] for stage in stages] == [
        ("corp." + stage.group, [stage.reads]) for stage in stages
    ]
    assert found["sink"] == ("corp." + GROUP, [fact.topic for fact in FACTS])
    assert len(found) == len(stages) + 1
    assert {REQUESTS, USAGE} <= set(found["sink"][1])


def test_workers_of_one_lane_are_added_up() -> None:
    """Records in flight and slots are sums over the workers, the oldest record is that of any; other metrics are passed by."""
    lanes = [Lane("admit"), Lane("complete-openai"), Lane("sink")]
    page = """
# TYPE millstream_in_flight gauge
millstream_in_flight{{stage="complete-openai"}} {flight}
millstream_in_flight{{stage="unheard-of"}} 9
# TYPE millstream_oldest_unacknowledged_seconds gauge
millstream_oldest_unacknowledged_seconds{{stage="complete-openai"}} {oldest}
# TYPE millstream_lane_slots gauge
millstream_lane_slots{{provider="openai"}} 256
# TYPE millstream_sink_lag_seconds gauge
millstream_sink_lag_seconds{{topic="llm.usage.v1"}} 0
# TYPE process_open_fds gauge
process_open_fds 12
"""
    fill(lanes, [page.format(flight=3, oldest=0.5), page.format(flight=4, oldest=61.5), ""])
    openai = lanes[1]
    assert (openai.in_flight, openai.slots, openai.oldest_seconds) == (7, 512, 61.5)
    assert (lanes[0].in_flight, lanes[2].oldest_seconds) == (None, 0.0)


def test_eighty_columns_hold_every_lane() -> None:
    """The view of a busy pipeline fits 80 columns, a line a lane, with money that is not in the spend beside it."""
    names = ("admit", *(f"complete-{name}" for name in PROVIDER_NAMES), "meter", "sink")
    lanes = [Lane(name, 1_234_567, 1_024, 25_600, 3_599.0, 12_345.6, 599_000_000, 99_999) for name in names]
    minute = Minute(740_000, 123_456, 12_345 * 10**9, 12_000, 3_400, 59_000_000)
    text = drawn(Look(NOW, lanes, minute, Freshness(86_399.0, 59.9)))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines[-len(names) :]] == [name.removeprefix("complete-") for name in names]
    for words in (
        "$12,345.00 spent",
        "12,000 unpriced and 3,400 of unknown cost",
        "23 h 59 min",
        "1,024/25,600",
        "(17 %)",
    ):
        assert words in text


def test_what_is_not_known_is_a_dash_and_what_is_wrong_a_sentence() -> None:
    """Without ClickHouse, Kafka and pages the view says so, and shows no figure as zero."""
    lanes = [Lane("admit"), Lane("sink")]
    text = drawn(Look(NOW, lanes, problems=["ClickHouse does not answer."]))
    assert "ClickHouse does not answer." in text
    assert "Last minute  unknown" in text
    assert text.splitlines()[-2].split() == ["admit", *"------"]


@pytest.mark.parametrize("minute", [None, Minute(0, 0, 0, 0, 0, None)])
def test_a_look_is_json(minute: Minute | None) -> None:
    """Scripts get every figure by name, null where nobody knows."""
    found = json.loads(json.dumps(Look(NOW, [Lane("sink", lag=0)], minute, Freshness(1.5, None)).values()))
    assert (found["at_us"], found["lanes"][0]["lag"], found["lanes"][0]["oldest_seconds"]) == (NOW, 0, None)
    assert (found["minute"] is None, found["freshness"]["newest_seconds"]) == (minute is None, 1.5)
