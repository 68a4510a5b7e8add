"""Write the Grafana dashboards of `deploy/grafana/dashboards`: `python -m cli.dashboards` (or `--check`, which fails on drift).

The ClickHouse dashboard says what calls cost and how they ended, by tenant and model; those of Prometheus how the workers do,
and how providers do and are chosen; that of quotas asks both. A panel here is one line or two: its title, its unit and its queries.
"""
# ruff: noqa: S608
# The statements are put together from constants of this file and are run by Grafana.

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import common as common_options
from grafana_foundation_sdk.builders import dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.common import GraphDrawStyle, StackingMode
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableRefresh

from core.pricing import TOKEN_CLASSES

FOLDER = Path(__file__).parent.parent / "deploy" / "grafana" / "dashboards"

#: The uids that deploy/grafana/provisioning gives the data sources.
PROMETHEUS = DataSourceRef("prometheus", "prometheus")
CLICKHOUSE = DataSourceRef("grafana-clickhouse-datasource", "clickhouse")

#: What a ClickHouse panel looks at: the dashboard's time range and the chosen tenants.
MINUTES = "$__timeFilter(minute) AND $__conditionalAll(tenant IN (${tenant:singlequote}), $tenant)"
OVER = f"FROM usage_by_minute WHERE {MINUTES}"
BY_TIME = "SELECT $__timeInterval(minute) AS time,"
CREATED = "$__timeFilter(created_at) AND $__conditionalAll(tenant IN (${tenant:singlequote}), $tenant)"

HEIGHT, HALF, QUARTER = 8, 12, 6


class Sql(Dataquery):
    """A query in the ClickHouse plugin's own form, which the SDK does not have.

    https://github.com/grafana/clickhouse-datasource/blob/main/src/types/sql.ts
    """

    def __init__(self, sql: str, over_time: bool) -> None:
        self._sql = sql
        self._over_time = over_time

    def to_json(self) -> dict[str, object]:
        """The query as it stands in a dashboard; `format` 0 is a time series and 1 a table."""
        kind, number = ("timeseries", 0) if self._over_time else ("table", 1)
        return {
            "datasource": {"type": CLICKHOUSE.type_val, "uid": CLICKHOUSE.uid}, "refId": "A", "pluginVersion": "4.0.0",
            "editorType": "sql", "queryType": kind, "format": number, "rawSql": self._sql,
        }  # fmt: skip


@dataclass(frozen=True)
class _Built(Builder[Dataquery]):
    query: Dataquery

    def build(self) -> Dataquery:
        return self.query


def sql_over_time(title: str, unit: str, sql: str, bars: bool = False) -> timeseries.Panel:
    """A ClickHouse query whose first column is the time; other texts name the series."""
    panel = timeseries.Panel().title(title).unit(unit).min(0).datasource(CLICKHOUSE).span(HALF).height(HEIGHT)
    if bars:
        stacking = common_options.StackingConfig().mode(StackingMode.NORMAL)
        panel = panel.draw_style(GraphDrawStyle.BARS).fill_opacity(80).stacking(stacking)
    return panel.with_target(_Built(Sql(sql, over_time=True)))


def sql_number(title: str, unit: str, sql: str) -> stat.Panel:
    """A ClickHouse query with one number."""
    panel = stat.Panel().title(title).unit(unit).datasource(CLICKHOUSE).span(QUARTER).height(4)
    return panel.with_target(_Built(Sql(sql, over_time=False)))


def sql_table(title: str, sql: str) -> table.Panel:
    """A ClickHouse query as it is."""
    panel = table.Panel().title(title).datasource(CLICKHOUSE).span(HALF).height(HEIGHT)
    return panel.with_target(_Built(Sql(sql, over_time=False)))


def metric(title: str, unit: str, **expressions: str) -> timeseries.Panel:
    """PromQL expressions over time; a name stands for its legend, `_` shows what tells the series apart."""
    panel = timeseries.Panel().title(title).unit(unit).min(0).datasource(PROMETHEUS).span(HALF).height(HEIGHT)
    for name, expression in expressions.items():
        query = prometheus.Dataquery().expr(expression).ref_id(name.upper())
        panel = panel.with_target(query.legend_format(name if name != "_" else "__auto").datasource(PROMETHEUS))
    return panel


def _quantile(share: float, name: str, *by: str) -> str:
    labels = ", ".join(("le", *by))
    return f"histogram_quantile({share}, sum by ({labels}) (rate({name}_bucket[$__rate_interval])))"


def _average(name: str) -> str:
    return f"sum(rate({name}_sum[$__rate_interval])) / sum(rate({name}_count[$__rate_interval]))"


def money() -> dashboard.Dashboard:
    """Spend, calls, errors, tokens and latency, from ClickHouse."""
    board = _dashboard("Millstream: spend and answers", "millstream-spend", "now-24h").with_variable(_tenants())
    for row, panels in (("Spend", _spend()), ("Answers", _answers())):
        board.with_row(dashboard.Row(row))
        for panel in panels:
            board.with_panel(panel)
    return board


def _spend() -> list[Any]:
    return [
        sql_number("Spend", "currencyUSD", f"SELECT sum(cost_nano_usd) / 1e9 AS usd {OVER}"),
        sql_number("Calls", "short", f"SELECT sum(calls) AS made {OVER}"),
        sql_number("Calls without a known cost", "short", f"SELECT sum(calls_without_cost) AS unknown {OVER}"),
        sql_number(
            "Calls that failed",
            "percentunit",
            f"SELECT sumIf(calls, status != 'succeeded') / greatest(sum(calls), 1) AS share {OVER}",
        ),
        sql_over_time(
            "Spend by tenant",
            "currencyUSD",
            f"{BY_TIME} tenant, sum(cost_nano_usd) / 1e9 AS usd {OVER} GROUP BY time, tenant ORDER BY time",
            bars=True,
        ),
        sql_over_time(
            "Spend by model",
            "currencyUSD",
            f"{BY_TIME} concat(provider, '/', model) AS name, sum(cost_nano_usd) / 1e9 AS usd {OVER} "
            "GROUP BY time, name ORDER BY time",
            bars=True,
        ),
        sql_table(
            "Models",
            "SELECT provider, model, sum(calls) AS made, sum(cost_nano_usd) / 1e9 AS usd, "
            f"sum(calls_without_cost) AS without_cost {OVER} GROUP BY provider, model ORDER BY usd DESC LIMIT 50",
        ),
        sql_table(
            "Users",
            "SELECT tenant, user, sum(calls) AS made, sum(cost_nano_usd) / 1e9 AS usd "
            f"{OVER} GROUP BY tenant, user ORDER BY usd DESC LIMIT 50",
        ),
    ]


def _answers() -> list[Any]:
    tokens = ", ".join(f"sum(tokens_{name}) AS {name}" for name in TOKEN_CLASSES)
    return [
        sql_over_time(
            "Time of a call: p50, p95, p99",
            "s",
            f"{BY_TIME} provider, (quantilesTDigestMerge(0.5, 0.95, 0.99)(provider_us) AS q)[1] / 1e6 AS p50, "
            f"q[2] / 1e6 AS p95, q[3] / 1e6 AS p99 {OVER} GROUP BY time, provider ORDER BY time",
        ),
        sql_over_time(
            "Calls by how they ended",
            "short",
            f"{BY_TIME} status, sum(calls) AS made {OVER} GROUP BY time, status ORDER BY time",
            bars=True,
        ),
        sql_over_time("Tokens by class", "short", f"{BY_TIME} {tokens} {OVER} GROUP BY time ORDER BY time", bars=True),
        sql_over_time(
            "Errors by code",
            "short",
            "SELECT $__timeInterval(created_at) AS time, error_code, count() AS calls FROM usage "
            f"WHERE {CREATED} AND error_code != '' GROUP BY time, error_code ORDER BY time",
            bars=True,
        ),
        sql_table(
            "Errors by provider and model",
            "SELECT provider, model, error_code, count() AS calls, max(created_at) AS latest FROM usage "
            f"WHERE {CREATED} AND error_code != '' GROUP BY provider, model, error_code ORDER BY calls DESC LIMIT 50",
        ),
        sql_table(
            "Models without a price",
            "SELECT provider, model, count() AS calls, max(created_at) AS latest FROM usage "
            f"WHERE {CREATED} AND cost_status = 'unpriced' GROUP BY provider, model ORDER BY calls DESC LIMIT 50",
        ),
        sql_table(
            "Slowest requests",
            "SELECT request_id, tenant, provider, model, attempts, dateDiff('millisecond', created_at, finished_at) AS ms "
            f"FROM responses WHERE {CREATED} ORDER BY ms DESC LIMIT 20",
        ),
        sql_table(
            "Dead letters",
            "SELECT stage, reason, topic, count() AS records, max(failed_at) AS latest FROM dead_letters "
            "WHERE $__timeFilter(failed_at) GROUP BY stage, reason, topic ORDER BY records DESC LIMIT 50",
        ),
    ]


def flow() -> dashboard.Dashboard:
    """Lanes, ledger and sink, from Prometheus."""
    rate = "[$__rate_interval]"
    call, ledger, sink = "gen_ai_client_operation_duration_seconds", "millstream_ledger", "millstream_sink"
    return (
        _dashboard("Millstream: workers and flow", "millstream-flow", "now-3h")
        .with_row(dashboard.Row("Stages"))
        .with_panel(metric("Records finished", "cps", _=f"sum by (stage, outcome) (rate(millstream_records_total{rate})) > 0"))
        .with_panel(metric("Records in flight", "short", _="sum by (stage) (millstream_in_flight)"))
        .with_panel(metric("Oldest record in flight", "s", _="max by (stage) (millstream_oldest_unacknowledged_seconds)"))
        .with_panel(metric("Dead letters", "short", _=f"sum by (stage, reason) (increase(millstream_dead_letters_total{rate})) > 0"))
        .with_row(dashboard.Row("Lanes"))
        .with_panel(metric(
            "Slots in use", "percentunit",
            _="sum by (provider) (millstream_lane_slots_in_use) / sum by (provider) (millstream_lane_slots)"))
        .with_panel(metric("Time of a call, p95", "s", _=_quantile(0.95, call, "gen_ai_provider_name")))
        .with_panel(metric("Calls", "cps", _=f"sum by (provider, status) (rate(millstream_provider_calls_total{rate})) > 0"))
        .with_panel(metric("Provider errors", "cps", _=f"sum by (provider, code) (rate(millstream_provider_errors_total{rate})) > 0"))
        .with_panel(metric("Retries", "cps", _=f"sum by (provider, reason) (rate(millstream_retries_total{rate}))"))
        .with_panel(metric("Tokens", "cps", _=f"sum by (gen_ai_provider_name, gen_ai_token_type) (rate(gen_ai_client_token_usage_sum{rate}))"))
        .with_panel(metric("Spend in an hour", "currencyUSD", _="sum by (provider) (increase(millstream_spend_usd_total[1h]))"))
        .with_row(dashboard.Row("Ledger"))
        .with_panel(metric(
            "Time of a transaction", "s", p50=_quantile(0.5, f"{ledger}_transaction_seconds"),
            p99=_quantile(0.99, f"{ledger}_transaction_seconds")))
        .with_panel(metric("Entries of a transaction", "short", average=_average(f"{ledger}_batch_entries")))
        .with_row(dashboard.Row("Sink"))
        .with_panel(metric("Records not stored yet", "short", _=f"sum by (topic) ({sink}_lag_records)"))
        .with_panel(metric("Oldest record not stored", "s", _=f"max by (topic) ({sink}_lag_seconds)"))
        .with_panel(metric("Rows stored", "cps", _=f"sum by (table) (rate({sink}_rows_total{rate}))"))
        .with_panel(metric("Bytes sent, compressed", "Bps", _=f"sum by (table) (rate({sink}_bytes_total{rate}))"))
        .with_panel(metric(
            "Time of an insert", "s", p50=_quantile(0.5, f"{sink}_insert_seconds"), p99=_quantile(0.99, f"{sink}_insert_seconds")))
        .with_panel(metric("Age of a record when it is stored, p99", "s", p99=_quantile(0.99, f"{sink}_freshness_seconds")))
        .with_panel(metric("Rows of an insert", "short", average=_average(f"{sink}_batch_rows")))
        .with_panel(metric("Batches tried again", "cps", _=f"sum by (step) (rate({sink}_retries_total{rate}))"))
        .with_row(dashboard.Row("Processes"))
        .with_panel(metric("Processes that answer", "short", up='sum(up{job="millstream"})'))
        .with_panel(metric("Memory", "bytes", _='process_resident_memory_bytes{job="millstream"}'))
        .with_panel(metric("CPU", "percentunit", _=f'rate(process_cpu_seconds_total{{job="millstream"}}{rate})'))
    )  # fmt: skip


def providers() -> dashboard.Dashboard:
    """Health and choice of providers, from Prometheus."""
    rate = "[$__rate_interval]"
    call = "gen_ai_client_operation_duration_seconds"
    selected = "orchestrator_provider_selection_total"
    return (
        _dashboard("Millstream: providers and routes", "millstream-providers", "now-6h")
        .with_row(dashboard.Row("Health"))
        .with_panel(metric("Healthy (1) or not (0)", "short", _="min by (provider) (millstream_provider_healthy)"))
        .with_panel(metric("Checks by what they found", "short", _=f"sum by (provider, result) (increase(provider_health_checks_total{rate})) > 0"))
        .with_panel(metric(
            "Circuit breakers: 0 closed, 1 half-open, 2 open", "short", _="max by (provider, model) (millstream_breaker_state)"))
        .with_panel(metric(
            "Calls that went well", "percentunit",
            _=f'sum by (provider) (rate(millstream_provider_calls_total{{status="succeeded"}}{rate})) '
            f"/ sum by (provider) (rate(millstream_provider_calls_total{rate}))"))
        .with_panel(metric("Time of a call, p50", "s", _=_quantile(0.5, call, "gen_ai_provider_name", "gen_ai_request_model")))
        .with_panel(metric("Rate limits", "cps", _=f'sum by (provider) (rate(millstream_provider_errors_total{{code="provider_rate_limited"}}{rate}))'))
        .with_row(dashboard.Row("Choice"))
        .with_panel(metric("Requests by model chosen first", "cps", _=f"sum by (provider, model) (rate({selected}{rate})) > 0"))
        .with_panel(metric("Requests by route", "cps", _=f"sum by (route) (rate({selected}{rate})) > 0"))
        .with_panel(metric("Fallbacks", "cps", _=f'sum by (provider) (rate(millstream_retries_total{{reason="fallback"}}{rate}))'))
        .with_panel(metric(
            "Complexity", "short", p50=_quantile(0.5, "orchestrator_complexity_score"),
            p90=_quantile(0.9, "orchestrator_complexity_score")))
    )  # fmt: skip


def quota() -> dashboard.Dashboard:
    """What users and accounts use of their limits, from ClickHouse and Prometheus."""
    rate = "[$__rate_interval]"
    board = (
        _dashboard("Millstream: quotas", "millstream-quota", "now-24h").with_variable(_tenants())
        .with_row(dashboard.Row("Accounts"))
        .with_panel(metric("Spent of limits of money", "currencyUSD", _="max by (account, limit) (millstream_account_spent_usd)"))
        .with_panel(metric("Held by open requests", "currencyUSD", _="max by (account, limit) (millstream_account_reserved_usd)"))
        .with_panel(metric("Refused by a limit", "short", _=f"sum by (code, meter) (increase(provider_quota_violations_total{rate})) > 0"))
        .with_panel(metric("Requests waiting for room", "short", _="sum(millstream_waiting_requests)"))
        .with_row(dashboard.Row("Users"))
    )  # fmt: skip
    for panel in _quotas():
        board.with_panel(panel)
    return board


def _quotas() -> list[Any]:
    who = "if(user = '', tenant, concat(tenant, '/', user)) AS name"
    tokens = " + ".join(f"tokens_{name}" for name in TOKEN_CLASSES)
    raised = CREATED.replace("created_at", "raised_at")
    return [
        sql_over_time(
            "Spend by user",
            "currencyUSD",
            f"{BY_TIME} {who}, sum(cost_nano_usd) / 1e9 AS usd {OVER} GROUP BY time, name ORDER BY time LIMIT 50 BY time",
            bars=True,
        ),
        sql_over_time(
            "Tokens by user",
            "short",
            f"{BY_TIME} {who}, sum({tokens}) AS used {OVER} GROUP BY time, name ORDER BY time LIMIT 50 BY time",
            bars=True,
        ),
        sql_table(
            "Users refused by a limit",
            "SELECT tenant, user, error_code, count() AS requests, max(created_at) AS latest FROM responses "
            f"WHERE {CREATED} AND error_code LIKE 'policy_%' GROUP BY tenant, user, error_code ORDER BY requests DESC LIMIT 50",
        ),
        sql_table(
            "Limits that were reached",
            "SELECT raised_at, subject AS account, details['limit'] AS limit_of, details['share'] AS percent, message "
            f"FROM alerts WHERE {raised} AND kind IN ('limit_near', 'limit_reached') ORDER BY raised_at DESC LIMIT 50",
        ),
    ]


def _tenants() -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable("tenant").label("Tenant").datasource(CLICKHOUSE).multi(True).include_all(True)
        .query("SELECT DISTINCT tenant FROM usage_by_minute ORDER BY tenant").refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
    )  # fmt: skip


def _dashboard(title: str, uid: str, since: str) -> dashboard.Dashboard:
    return dashboard.Dashboard(title).uid(uid).tags(["millstream"]).time(since, "now").refresh("30s").readonly()


def generated() -> dict[Path, str]:
    """Every dashboard file and the text it should hold."""
    boards = {"spend": money(), "flow": flow(), "providers": providers(), "quota": quota()}
    made = {FOLDER / f"{name}.json": board.build() for name, board in boards.items()}
    for board in made.values():
        for number, panel in enumerate(board.panels or (), 1):
            panel.id_val = number
    return {path: JSONEncoder(sort_keys=True, indent=2).encode(board) + "\n" for path, board in made.items()}


def queries(text: str) -> list[tuple[str, dict[str, Any]]]:
    """The queries of a dashboard file, each after its panel's title."""
    return [(panel["title"], target) for panel in json.loads(text)["panels"] for target in panel.get("targets", ())]


def main() -> int:
    stale = [path for path, text in generated().items() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv:
        for path in stale:
            print(f"deploy/grafana/dashboards/{path.name} is out of date: run `make dashboards` and commit the result.")
        return 1 if stale else 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path in stale:
        path.write_text(generated()[path])
    print(f"{len(stale)} dashboards changed.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
