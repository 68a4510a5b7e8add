"""The rollups of ClickHouse beside the facts that they are made of, group by group."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from cli.reconcile.entries import TOKENS
from core.reconcile import NAMED, Difference, Line, Side
from sinks.query import Store

#: Columns of times, each a t-digest in a rollup.
TIMES = ("queue_us", "first_token_us", "provider_us", "total_us")

#: An insert reaches the facts and each rollup one after the other: what differs for so many looks is no insert under way.
LOOKS = 4
LOOK_SECONDS = 0.7
MOST_GROUPS = 1_000


@dataclass(frozen=True, slots=True)
class Rollup:
    """A rollup of `usage`: its column of time and that column's value for a fact, what it groups by, and what it sums.

    `of_facts` and `of_rollup` are the sums as SQL by figure; `only` says which facts it is made of.
    """

    table: str
    time: str
    bucket: str
    dimensions: tuple[str, ...]
    of_facts: dict[str, str]
    of_rollup: dict[str, str]
    only: str = "1"


def _weight(column: str) -> str:
    """How many values a t-digest was given, as SQL: the one thing that it tells exactly.

    A state ends with the mean and the weight of each centroid, four bytes each:
    https://github.com/ClickHouse/ClickHouse/blob/master/src/AggregateFunctions/QuantileTDigest.h
    """
    state = f"CAST({column} AS String)"
    weight = "reinterpretAsFloat32(substring(state, length(state) - 8 * i - 3, 4))"
    return f"arraySum(arrayMap(state -> arraySum(arrayMap(i -> {weight}, range(intDiv(length(state) - 2, 8)))), [{state}]))"


_DIMENSIONS = ("tenant", "user", "project", "task", "provider", "model", "status", "error_code")
_SUMMED = {
    "requests": "countIf(attempt = 1 AND adjusts = '')",
    "calls": "countIf(adjusts = '')",
    "calls_without_cost": "countIf(adjusts = '' AND usage.cost_nano_usd IS NULL)",
    **{name: f"sum(ifNull(usage.{name}, 0))" for name in (*TOKENS, "cost_nano_usd")},
}
_TIMED = {f"with_{name}": f"countIf(adjusts = '' AND isNotNull(usage.{name}))" for name in TIMES}
_HOUR = "toStartOfHour(toDateTime(created_at, 'UTC'))"


def _rollup(table: str, time: str, bucket: str) -> Rollup:
    summed = {name: f"sum({table}.{name})" for name in _SUMMED}
    return Rollup(table, time, bucket, _DIMENSIONS, _SUMMED, summed)


def _with_times(rollup: Rollup) -> Rollup:
    counts = {f"with_{name}": f"sum(toInt64({_weight(f'{rollup.table}.{name}')}))" for name in TIMES}
    return Rollup(
        rollup.table, rollup.time, rollup.bucket, rollup.dimensions, rollup.of_facts | _TIMED,
        rollup.of_rollup | counts, rollup.only,
    )  # fmt: skip


ROLLUPS = (
    _with_times(_rollup("usage_by_minute", "minute", "toStartOfMinute(toDateTime(created_at, 'UTC'))")),
    _rollup("usage_by_hour", "hour", _HOUR),
    _rollup("usage_by_day", "day", "toDate(created_at, 'UTC')"),
    _with_times(
        Rollup(
            "latency_by_hour", "hour", _HOUR, ("tenant", "project", "task", "provider", "model", "status"),
            {"calls": "count()"}, {"calls": "sum(latency_by_hour.calls)"}, "adjusts = ''",
        )
    ),
)  # fmt: skip


def rollup_lines(store: Store, since_us: int | None, progress: Callable[[str], None]) -> Iterator[Line]:
    """A line a rollup: the sums of the facts beside the rollup's, for every group; whole days from that of `since_us` on."""
    day = "" if since_us is None else f"{datetime.fromtimestamp(since_us / 1e6, UTC):%Y-%m-%d}"
    for rollup in ROLLUPS:
        progress(f"Summing usage for {rollup.table} ...")
        left, right, groups = _sums(store, rollup, day)
        for _ in range(LOOKS - 1):
            if not groups:
                break
            time.sleep(LOOK_SECONDS)
            left, right, again = _sums(store, rollup, day)
            groups = {key: what for key, what in again.items() if key in groups}
        notes = (f"groups before {day}",) if day else ()
        first = tuple(Difference(key, what) for key, what in list(groups.items())[:NAMED])
        name = f"table usage = {rollup.table}"
        yield Line(name, Side("table usage", left), Side(rollup.table, right), len(groups), first, notes)


def _sums(store: Store, rollup: Rollup, day: str) -> tuple[dict[str, int], dict[str, int], dict[str, str]]:
    """The sums of the facts, those of the rollup, and the groups in which they differ."""
    row = store.rows(_sums_sql(rollup, day))[0]
    groups = {}
    for key, values in row["groups"]:
        figures = [tuple(values[at : at + 3]) for at in range(0, len(values), 3)]
        unequal = [
            f"{name} {ours} in table usage, {theirs} in {rollup.table}"
            for name, ours, theirs in figures
            if ours != theirs
        ]
        groups[key] = "; ".join(unequal) or "is in one of them only"
    left, right = ({name: int(row[f"{side}_{name}"] or 0) for name in rollup.of_facts} for side in ("left", "right"))
    return left, right, groups


def _sums_sql(rollup: Rollup, day: str) -> str:
    figures = tuple(rollup.of_facts)
    keys = ", ".join(rollup.dimensions)
    of_facts, of_rollup = (
        ", ".join(f"{sql} AS {name}" for name, sql in sums.items()) for sums in (rollup.of_facts, rollup.of_rollup)
    )
    since_facts = f"created_at >= toDateTime64('{day} 00:00:00', 6, 'UTC')" if day else "1"
    since_rollup = f"{rollup.time} >= toDate('{day}')" if day else "1"
    sides = ", ".join(
        f"sumIf(toInt64(s.{name}), s.side = 1) AS l_{name}, sumIf(toInt64(s.{name}), s.side = 2) AS r_{name}"
        for name in figures
    )
    differs = " OR ".join(
        ["countIf(s.side = 1) != countIf(s.side = 2)", *(f"l_{name} != r_{name}" for name in figures)]
    )
    shown = ", ".join(f"'{name}', toString(l_{name}), toString(r_{name})" for name in figures)
    totals = ", ".join(f"sum(l_{name}) AS left_{name}, sum(r_{name}) AS right_{name}" for name in figures)
    group = ", ".join(f"s.{name}" for name in rollup.dimensions)
    return f"""
        SELECT {totals}, groupArrayIf({MOST_GROUPS})((name, shown), differs) AS groups FROM (
            SELECT toString((toString(s.bucket), {group})) AS name, {sides}, ({differs}) AS differs, [{shown}] AS shown
            FROM (
                SELECT {rollup.bucket} AS bucket, {keys}, {of_facts}, 1 AS side
                FROM usage WHERE {rollup.only} AND {since_facts} GROUP BY bucket, {keys}
                UNION ALL
                SELECT {rollup.time} AS bucket, {keys}, {of_rollup}, 2 AS side
                FROM {rollup.table} WHERE {since_rollup} GROUP BY bucket, {keys}
            ) AS s GROUP BY s.bucket, {group}
        )"""  # noqa: S608
