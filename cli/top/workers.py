"""What the workers of this folder's stack say of themselves on their metrics pages."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from prometheus_client.parser import text_string_to_metric_families

from cli.top.figures import Lane

SECONDS = 2.0


def pages(addresses: Iterable[str]) -> list[str]:
    """The pages that answer, in no order."""
    with ThreadPoolExecutor(8) as threads:
        return [page for page in threads.map(_page, addresses) if page is not None]


def _page(address: str) -> str | None:
    try:
        with urllib.request.urlopen(address, timeout=SECONDS) as answer:
            text: str = answer.read().decode()
            return text
    except (OSError, ValueError):
        return None


def fill(lanes: Iterable[Lane], texts: Iterable[str]) -> None:
    """Add to lanes what pages say of them: records in flight and slots over all workers, the oldest record of any."""
    by_name = {lane.name: lane for lane in lanes}
    for text in texts:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                _take(by_name, sample.name, sample.labels, sample.value)


def _take(lanes: dict[str, Lane], name: str, labels: dict[str, str], value: float) -> None:
    match name:
        case "millstream_in_flight" if lane := lanes.get(labels["stage"]):
            lane.in_flight = (lane.in_flight or 0) + int(value)
        case "millstream_oldest_unacknowledged_seconds" if lane := lanes.get(labels["stage"]):
            lane.oldest_seconds = max(lane.oldest_seconds or 0.0, value)
        case "millstream_lane_slots" if lane := lanes.get(f"complete-{labels['provider']}"):
            lane.slots = (lane.slots or 0) + int(value)
        case "millstream_sink_lag_seconds" if lane := lanes.get("sink"):
            lane.oldest_seconds = max(lane.oldest_seconds or 0.0, value)
