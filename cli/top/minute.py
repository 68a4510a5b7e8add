"""The last minute, asked of ClickHouse."""

from __future__ import annotations

import math
from typing import Any, Protocol

from cli.top.figures import Freshness, Lane, Minute

#: Requests older than this are not looked at, so that a look reads days and not years.
_RECENT = "created_at >= now() - INTERVAL 1 DAY"

_CALLS = f"""
    SELECT provider, grouping(provider) = 1 AS whole, countIf(adjusts = '') AS calls,
        countIf(adjusts = '' AND status != 'succeeded') AS errors, ifNull(sum(cost_nano_usd), 0) AS spend,
        countIf(adjusts = '' AND cost_status = 'unpriced') AS unpriced, countIf(adjusts = '' AND cost_status = 'unknown') AS unknown,
        quantileTDigestIf(0.95)(provider_us, adjusts = '' AND provider_us IS NOT NULL) AS p95,
        quantileTDigestIf(0.95)(greatest(0, toUnixTimestamp64Milli(ingested_at) - toUnixTimestamp64Milli(finished_at)), adjusts = '') AS stored_after
    FROM usage WHERE {_RECENT} AND finished_at > now64(6) - INTERVAL 1 MINUTE AND finished_at <= now64(6)
    GROUP BY GROUPING SETS ((provider), ())"""  # noqa: S608  constants of this file only

_NEWEST = f"""
    SELECT count() AS rows, (toUnixTimestamp64Micro(now64(6)) - toUnixTimestamp64Micro(max(finished_at))) / 1e6 AS age
    FROM usage WHERE {_RECENT}"""  # noqa: S608

_REQUESTS = "SELECT count() AS requests FROM requests WHERE created_at > now64(6) - INTERVAL 1 MINUTE AND created_at <= now64(6)"


class Asks(Protocol):
    """Whoever answers SQL with rows, as `sinks.query.Store` does."""

    def rows(self, sql: str, parameters: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """The rows by column name."""


def last_minute(store: Asks, lanes: list[Lane]) -> tuple[Minute, Freshness]:
    """The last minute over all calls and how fresh it is; each lane gets its own part. Raises `sinks.query.QueryFailed`."""
    by_name = {lane.name: lane for lane in lanes}
    whole: dict[str, Any] | None = None
    for lane in lanes:
        if lane.name.startswith("complete-"):
            lane.per_second, lane.errors = 0.0, 0
    for row in store.rows(_CALLS):
        if row["whole"]:
            whole = row
        elif found := by_name.get(f"complete-{row['provider']}"):
            found.per_second, found.errors = int(row["calls"]) / 60, int(row["errors"])
            found.p95_us = _whole(row["p95"])
    if admit := by_name.get("admit"):
        admit.per_second = int(store.rows(_REQUESTS)[0]["requests"]) / 60
    newest = store.rows(_NEWEST)[0]
    age = max(0.0, float(newest["age"])) if newest["rows"] else None
    if whole is None:
        return Minute(0, 0, 0, 0, 0, None), Freshness(age, None)
    calls, errors, spend, unpriced, unknown = (
        int(whole[name]) for name in ("calls", "errors", "spend", "unpriced", "unknown")
    )
    after = _whole(whole["stored_after"])
    return Minute(calls, errors, spend, unpriced, unknown, _whole(whole["p95"])), Freshness(
        age, None if after is None else after / 1_000
    )


def _whole(value: float | None) -> int | None:
    return None if value is None or math.isnan(value) else round(value)
