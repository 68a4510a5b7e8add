"""`millstream report --by prompt_version` and `--by route`, on facts in a ClickHouse of their own."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from rich.console import Console

from cli.report.html import page
from cli.report.machine import as_csv, as_json
from cli.report.queries import gather
from cli.report.table import draw
from cli.report.window import parse_since
from config.settings import Settings
from local.clickhouse import ClickHouseServer
from sinks.query import Store
from sinks.tables import migrate_clickhouse
from sinks.writer import connect

NOON = 1_800_014_400_000_000
PLAIN, WARM, LETTER = "draft_cv/plain", "draft_cv/warm", "draft_cover_letter/v1"
COLUMNS = {
    "attempt_id": "String", "request_id": "String", "tenant": "String", "prompt_version": "String", "route": "String",
    "adjusts": "String", "status": "String", "cost_nano_usd": "Nullable(Int64)", "cost_status": "String",
    "provider_us": "Nullable(Int64)", "created_at": "DateTime64(6)",
}  # fmt: skip
#: Version, route, adjusts, status, cost, its status, time of the provider.
CALLS = [
    (PLAIN, "drafts", "", "succeeded", 1_000, "priced", 100_000),
    (PLAIN, "drafts", "", "succeeded", 2_000, "priced", 300_000),
    (PLAIN, "drafts", "", "failed", 0, "not_charged", 200_000),
    (PLAIN, "drafts", "", "succeeded", None, "unpriced", 200_000),
    (PLAIN, "drafts", "a0", "succeeded", -100, "priced", None),
    (WARM, "drafts", "", "succeeded", 5_000, "priced", 900_000),
    (LETTER, "letters", "", "succeeded", 7_000, "priced", 50_000),
    ("", "", "", "succeeded", 11_000, "priced", 10_000),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Calls of two versions of one task, of another task, and of none."""
    server = ClickHouseServer(tmp_path_factory.mktemp("clickhouse"))
    server.start()
    try:
        settings = Settings(clickhouse_url=server.url)
        migrate_clickhouse(settings)
        with connect(settings) as client:
            rows = [
                (f"a{n}", f"r{n}", "acme", *call, datetime.fromtimestamp(NOON / 1e6, UTC))
                for n, call in enumerate(CALLS)
            ]
            client.insert("usage", rows, column_names=list(COLUMNS), column_type_names=list(COLUMNS.values()))
        found = Store(settings)
        yield found
        found.close()
    finally:
        server.stop()


def test_versions_of_a_prompt_are_compared_by_cost_time_and_errors(store: Store) -> None:
    """Each version has its own calls, failures, spend, mean cost of a call and times; calls of no task are a group too."""
    report = gather(store, parse_since("1d", NOON + 3_600_000_000), "prompt_version", None, 0)
    groups = {group.name: group for group in report.groups}
    assert list(groups) == ["", LETTER, WARM, PLAIN]
    plain, warm = groups[PLAIN], groups[WARM]
    assert (plain.calls, plain.errors, plain.spend, plain.unpriced, plain.spend_per_call) == (4, 1, 2_900, 1, 967)
    assert (warm.calls, warm.errors, warm.spend, warm.spend_per_call) == (1, 0, 5_000, 5_000)
    assert (plain.p50, warm.p50) == (200_000, 900_000)
    assert (report.total.calls, report.total.spend) == (7, 25_900)


def test_routes_are_compared_alike(store: Store) -> None:
    """Spend and calls by the route that chose the model."""
    report = gather(store, parse_since("1d", NOON + 3_600_000_000), "route", "acme", 0)
    assert [(group.name, group.calls, group.spend) for group in report.groups] == [
        ("", 1, 11_000), ("drafts", 5, 7_900), ("letters", 1, 7_000)]  # fmt: skip


def test_every_form_says_the_same(store: Store) -> None:
    """Terminal, page, CSV and JSON name the versions with the mean cost of a call; nothing is wider than the terminal."""
    report = gather(store, parse_since("1d", NOON + 3_600_000_000), "prompt_version", None, 0)
    console = Console(width=80, file=io.StringIO(), color_system=None)
    for part in draw(report, 80):
        console.print(part)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(name in text for name in (PLAIN, WARM, LETTER, "no prompt_version", "$0.00000097"))
    assert max(map(len, text.splitlines())) <= 80
    assert all(name in page(report) for name in (PLAIN, WARM, "per call", "$0.00000097"))
    lines = {line["prompt_version"]: line for line in csv.DictReader(io.StringIO(as_csv(report)))}
    assert lines[PLAIN]["spend_per_call_nano_usd"] == "967"
    assert {each["name"] for each in json.loads(as_json(report))["groups"]} == {"", PLAIN, WARM, LETTER}
