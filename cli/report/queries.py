"""The questions of a report to ClickHouse; every value goes there as a query parameter."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Protocol

from cli.report.figures import DIMENSIONS, TOKEN_CLASSES, Figures, Report, Request, Step
from cli.report.window import Window

#: Requests listed as the slowest and as the costliest.
STANDOUTS = 10
_NO_LIMIT = 1 << 31

_NAMES = {name: f"toString(`{name}`)" for name in DIMENSIONS} | {"day": "toString(toDate(created_at, 'UTC'))"}
_TOKENS = ", ".join(f"sum(tokens_{name}) AS {name}" for name in TOKEN_CLASSES)

#: An event that `adjusts` another is a correction of its cost: it counts as spend, and stands for no call. A call that got
#: its price by such a correction is unpriced no more.
_FIGURES = f"""
    countIf(adjusts = '') AS calls,
    countIf(adjusts = '' AND status != 'succeeded') AS errors,
    ifNull(sum(cost_nano_usd), 0) AS spend,
    countIf(adjusts = '' AND cost_status = 'unpriced' AND attempt_id NOT IN corrected) AS unpriced,
    countIf(adjusts = '' AND cost_status = 'unknown') AS unknown,
    ifNull(sumIf(reserved_nano_usd, adjusts = '' AND cost_status = 'unknown'), 0) AS unknown_most,
    countIf(reason = 'cached') AS cache_hits,
    ifNull(sum(saved_nano_usd), 0) AS cache_saved,
    {_TOKENS},
    quantilesTDigestIf(0.5, 0.95, 0.99)(provider_us, adjusts = '' AND provider_us IS NOT NULL) AS took,
    quantilesTDigestIf(0.5, 0.95)(first_token_us, adjusts = '' AND first_token_us IS NOT NULL) AS first_token
"""


class Asks(Protocol):
    """Whoever answers SQL with rows, as `sinks.query.Store` does."""

    def rows(self, sql: str, parameters: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """The rows by column name."""


def gather(store: Asks, window: Window, by: str, tenant: str | None, limit: int) -> Report:
    """The report on the requests made in `window`, of all tenants or one, grouped by one of `DIMENSIONS`.

    At most `limit` groups, 0 for all; days are never left out. Raises `sinks.query.QueryFailed`.
    """
    parameters: dict[str, Any] = {
        "since": window.since, "step_us": window.step * 1_000_000, "last_bucket": window.buckets[-1], "top": STANDOUTS,
        "groups": (_NO_LIMIT if by == "day" else limit or _NO_LIMIT) + 1,
    }  # fmt: skip
    where = "created_at >= fromUnixTimestamp64Micro({since:Int64}, 'UTC')"
    if tenant is not None:
        parameters["tenant"] = tenant
        where += " AND tenant = {tenant:String}"

    def ask(sql: str, **more: Any) -> list[dict[str, Any]]:
        return store.rows(sql, {**parameters, **more})

    rows = ask(_groups_sql(by, where))
    total = next((_figures(row) for row in rows if row["whole"]), _figures(None))
    groups = [_figures(row) for row in rows if not row["whole"]]
    trends = ask(_trends_sql(by, where), names=[group.name for group in groups]) if by != "day" and groups else []
    return Report(
        window, by, tenant, total, groups,
        more=max(0, int(rows[0]["found"]) - 1 - len(groups)) if rows else 0,
        steps=_steps(window, ask(_steps_sql(where))),
        trends=_trends(window, trends),
        error_codes=[(row["error_code"], int(row["n"])) for row in ask(_errors_sql(where))],
        slowest=_once([_request(row) for row in ask(_slowest_sql(where))]),
        costliest=[_request(row) for row in ask(_costliest_sql(where))],
    )  # fmt: skip


def _groups_sql(by: str, where: str) -> str:
    order = "name" if by == "day" else "spend DESC, calls DESC, name"
    return f"""
        WITH corrected AS (SELECT adjusts FROM usage WHERE adjusts != '' AND {where})
        SELECT {_NAMES[by]} AS name, grouping(name) = 1 AS whole, count() OVER () AS found, {_FIGURES}
        FROM usage WHERE {where}
        GROUP BY GROUPING SETS ((name), ())
        ORDER BY whole DESC, {order} LIMIT {{groups:UInt32}}"""  # noqa: S608


_BUCKET = "least(intDiv(toUnixTimestamp64Micro(created_at), {step_us:Int64}), {last_bucket:Int64})"


def _steps_sql(where: str) -> str:
    return f"""
        SELECT {_BUCKET} AS bucket, ifNull(sum(cost_nano_usd), 0) AS spend, countIf(adjusts = '') AS calls,
            countIf(adjusts = '' AND status != 'succeeded') AS errors,
            quantileTDigestIf(0.95)(provider_us, adjusts = '' AND provider_us IS NOT NULL) AS p95
        FROM usage WHERE {where} GROUP BY bucket"""  # noqa: S608


def _trends_sql(by: str, where: str) -> str:
    return f"""
        SELECT {_NAMES[by]} AS name, {_BUCKET} AS bucket, ifNull(sum(cost_nano_usd), 0) AS spend
        FROM usage WHERE {where} AND name IN {{names:Array(String)}} GROUP BY name, bucket"""  # noqa: S608


def _errors_sql(where: str) -> str:
    return f"""
        SELECT error_code, count() AS n FROM usage WHERE {where} AND adjusts = '' AND error_code != ''
        GROUP BY error_code ORDER BY n DESC, error_code LIMIT {{top:UInt32}}"""  # noqa: S608


def _slowest_sql(where: str) -> str:
    return f"""
        SELECT request_id, tenant AS of_tenant, task AS of_task, model AS of_model,
            if(error_code = '', outcome, error_code) AS how, cost_nano_usd AS cost,
            toUnixTimestamp64Micro(finished_at) - toUnixTimestamp64Micro(created_at) AS lasted,
            toUnixTimestamp64Micro(created_at) AS made
        FROM responses WHERE {where} ORDER BY lasted DESC, request_id LIMIT {{top:UInt32}}"""  # noqa: S608


def _costliest_sql(where: str) -> str:
    # Nearly all requests are one event, and of those only the dearest can be among the dearest requests; so not every
    # request is added up, but those and the ones with several events.
    return f"""
        WITH several AS (SELECT request_id FROM usage WHERE {where} AND (attempt > 1 OR adjusts != '')),
            dear AS (
                SELECT request_id FROM usage WHERE {where} AND cost_nano_usd > 0 AND request_id NOT IN several
                ORDER BY cost_nano_usd DESC, request_id LIMIT {{top:UInt32}}
            )
        SELECT request_id, any(tenant) AS of_tenant, any(task) AS of_task,
            argMax(model, attempt) AS of_model, argMax(if(error_code = '', status, error_code), attempt) AS how,
            sum(cost_nano_usd) AS cost, if(countIf(total_us IS NULL AND adjusts = '') > 0, NULL, max(total_us)) AS lasted,
            min(toUnixTimestamp64Micro(created_at)) AS made
        FROM usage WHERE {where} AND (request_id IN several OR request_id IN dear) GROUP BY request_id HAVING cost > 0
        ORDER BY cost DESC, request_id LIMIT {{top:UInt32}}"""  # noqa: S608


def _figures(row: dict[str, Any] | None) -> Figures:
    if row is None:
        nothing: dict[str, int | None] = dict.fromkeys(TOKEN_CLASSES)
        return Figures("", 0, 0, 0, 0, 0, 0, nothing, None, None, None, None, None)
    counts = [int(row[name]) for name in ("calls", "errors", "spend", "unpriced", "unknown", "unknown_most")]
    tokens = {name: None if row[name] is None else int(row[name]) for name in TOKEN_CLASSES}
    times = [_whole(value) for value in (*row["took"], *row["first_token"])]
    calls, errors, spend, unpriced, unknown, most = counts
    name = "" if row["whole"] else row["name"]
    p50, p95, p99, *first_token = times
    found = Figures(
        name, calls, errors, spend, unpriced, unknown, most, tokens, p50, p95, p99, first_token[0], first_token[1]
    )
    return replace(found, cache_hits=int(row["cache_hits"]), cache_saved=int(row["cache_saved"]))


def _whole(value: float | None) -> int | None:
    return None if value is None or math.isnan(value) else round(value)


def _steps(window: Window, rows: list[dict[str, Any]]) -> list[Step]:
    found = {int(row["bucket"]): row for row in rows}
    steps = []
    for bucket in window.buckets:
        start = bucket * window.step * 1_000_000
        row = found.get(bucket)
        if row is None:
            steps.append(Step(start, 0, 0, 0, None))
        else:
            steps.append(Step(start, int(row["spend"]), int(row["calls"]), int(row["errors"]), _whole(row["p95"])))
    return steps


def _trends(window: Window, rows: list[dict[str, Any]]) -> dict[str, list[int]]:
    trends: dict[str, list[int]] = {}
    for row in rows:
        values = trends.setdefault(row["name"], [0] * len(window.buckets))
        values[int(row["bucket"]) - window.buckets[0]] = int(row["spend"])
    return trends


def _request(row: dict[str, Any]) -> Request:
    cost, lasted = (None if row[name] is None else int(row[name]) for name in ("cost", "lasted"))
    return Request(
        row["request_id"], row["of_tenant"], row["of_task"], row["of_model"], row["how"], cost, lasted, int(row["made"])
    )


def _once(requests: list[Request]) -> list[Request]:
    """Without a request that was answered twice."""
    return list({request.request_id: request for request in reversed(requests)}.values())[::-1]
