"""`millstream reprice` on real Kafka and ClickHouse: calls that were priced otherwise, and two who reprice at once."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cli import reprice as command
from cli.reprice import DAY_US, Sum, price_given, reprice
from config.prices import price_on
from core.pricing import cost_of
from tests.examples import NOON
from tests.stack.sink_world import MakeWorld, World, eventually, usage

HOUR_US = 3_600_000_000
TODAY = time.time_ns() // 1_000 // DAY_US
MINI = "openai/gpt-5-mini"


def send(here: World, events: list[dict[str, Any]]) -> None:
    """Publish usage events and wait until they are facts."""
    for event in events:
        here.send("LlmUsage", "llm.usage.v1", event, event["attempt_id"])
    here.producer.flush()
    eventually(here.stored_up_to_the_end)


def costs(here: World) -> dict[str, int | None]:
    """What each call costs with its adjustments, by attempt id."""
    return dict(here.rows("SELECT attempt_id, cost_nano_usd FROM provider_calls"))  # type: ignore[arg-type]


def test_calls_of_another_price_come_to_todays(world: MakeWorld) -> None:
    """Of calls priced by hand, too dear, too cheap and as today, the first two are adjusted to today's price, once."""
    here = world(partitions=2)
    rng = random.Random(41)
    price = price_on("openai", "gpt-5-mini", TODAY)
    assert price is not None
    dear, cheap, right, unknown = (usage(rng, model="gpt-5-mini", price_date=20_000, attempt=1) for _ in range(4))
    fair = [cost_of(event["tokens"], price) for event in (dear, cheap, right)]
    totals = [cost.total or 0 for cost in fair]
    nothing = dict.fromkeys(dear["costs"])
    dear |= {"cost_nano_usd": totals[0] + 500, "costs": nothing | {"input_uncached": totals[0] + 500}}
    cheap |= {"cost_nano_usd": 1, "costs": nothing | {"input_uncached": 1}}
    right |= {"cost_nano_usd": totals[2], "costs": fair[2].by_class}
    unknown |= {"cost_nano_usd": None, "cost_status": "unknown"}
    here.start_sink()
    send(here, [dear, cheap, right, unknown])

    def today(*, publish: bool) -> Sum:
        return reprice(here.settings, NOON, NOON + HOUR_US, None, None, TODAY, publish=publish)[MINI]

    before = totals[0] + 501 + totals[2]
    expected = Sum(calls=4, adjusted=2, left=1, before=before, after=sum(totals))
    assert today(publish=False) == today(publish=True) == expected
    eventually(here.stored_up_to_the_end)
    events = (dear, cheap, right, unknown)
    assert costs(here) == dict(zip((e["attempt_id"] for e in events), [*totals, None], strict=True))
    adjusted = here.rows("SELECT adjusts, price_source, toInt32(price_date), attempt FROM usage WHERE adjusts != ''")
    assert sorted(adjusted) == sorted((e["attempt_id"], price.source, price.day, 1) for e in (dear, cheap))
    assert here.rows("SELECT sum(cost_nano_usd), sum(calls) FROM usage_by_day") == [(sum(totals), 4)]
    assert today(publish=True) == Sum(4, 0, 1, sum(totals), sum(totals))


def test_of_two_at_once_one_counts(world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs with different prices that read the same state leave one adjustment a call; another run brings all to one price."""
    here = world(partitions=2, sink_batch_rows=20)
    rng = random.Random(42)
    calls = [usage(rng, model="gpt-5-mini") for _ in range(60)]
    here.start_sink()
    send(here, calls)
    both_have_read, charged = threading.Barrier(2), command._charged

    def read_together(*arguments: Any) -> Iterator[Any]:
        found = list(charged(*arguments))
        both_have_read.wait(30)
        yield from found

    def run(text: str) -> Sum:
        given = price_given(text, TODAY)
        return reprice(here.settings, NOON, NOON + HOUR_US, MINI, given, TODAY, publish=True)[MINI]

    prices = ("input=1,output=0", "input=2,output=0")
    with monkeypatch.context() as patched, ThreadPoolExecutor(2) as threads:
        patched.setattr(command, "_charged", read_together)
        assert [found.adjusted for found in threads.map(run, prices)] == [60, 60]
    eventually(here.stored_up_to_the_end)
    assert here.rows("SELECT count(), uniqExact(adjusts) FROM usage WHERE adjusts != ''") == [(60, 60)]
    once, twice = ({e["attempt_id"]: usd * 1_000 * e["tokens"]["input_uncached"] for e in calls} for usd in (1, 2))
    found = costs(here)
    assert all(found[i] in (once[i], twice[i]) for i in once)
    dearer = sum(found[i] == twice[i] for i in once)
    assert run(prices[0]).adjusted == dearer
    eventually(here.stored_up_to_the_end)
    assert costs(here) == once
    assert here.rows("SELECT sum(cost_nano_usd) FROM usage_by_hour") == [(sum(once.values()),)]
