"""How fast SQL is over many facts: every view, and every statement of docs/analytics.md.

`python -m benchmarks.analytics --facts 100000000` fills a ClickHouse of its own with generated usage of the last 90 days, rollups
included, and asks each statement several times. It prints a table and writes `benchmarks/results/analytics.json`. Filling takes
about a quarter of an hour for 100 million facts on two cores; `--path` keeps them for another run.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import Error as ClickHouseError
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.machine import machine, versions
from config.settings import Settings
from local.clickhouse import ClickHouseServer
from sinks.grants import READ_VIEWS
from sinks.tables import migrate_clickhouse
from sinks.writer import connect

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "analytics.json"
DAYS = 90
AIM_SECONDS = 0.5
#: Facts a block: what one large insert of a sink holds, times ten.
BLOCK = 200_000

#: One block of usage, uneven as in use: a few tenants, users and models have most of the calls, and a user does one thing most of
#: the time, with the model that the tenant has chosen for it.
FILL = """
INSERT INTO usage (kafka_topic, kafka_partition, kafka_offset, ce_id, attempt_id, request_id, tenant, user, project, task, plan,
    provider, model, response_model, attempt, reason, status, error_code, tokens_input_uncached, tokens_cache_read,
    tokens_output_text, tokens_reasoning, costs_input_uncached, costs_output_text, cost_nano_usd, cost_status,
    price_source, price_date, queue_us, first_token_us, provider_us, total_us, created_at, admitted_at, started_at, finished_at)
WITH
    cityHash64(number) AS h,
    pow((h % 10007) / 10007, 3) AS uneven,
    toUInt32(100 * uneven) AS tenant_number,
    toUInt32(100 * pow((intDiv(h, 10007) % 9973) / 9973, 2)) AS user_number,
    ['gpt-5-mini', 'gemini-2.5-flash', 'claude-haiku-4-5', 'gpt-5', 'gemini-2.5-pro', 'claude-sonnet-4-5'] AS models,
    ['openai', 'google', 'anthropic', 'openai', 'google', 'anthropic'] AS providers,
    ['extraction', 'cv_draft', 'cover_letter', 'chat', 'summary', 'classification', 'code', 'search'] AS tasks,
    1 + (user_number + if(h % 10 = 0, 1, 0)) % 8 AS task_number,
    1 + (tenant_number + task_number + if(h % 20 = 0, 1, 0)) % 6 AS which,
    intDiv(h, 7) % 100 < 2 AS failed,
    50 + intDiv(h, 11) % 4000 AS tokens_in,
    1 + intDiv(h, 13) % 800 AS tokens_out,
    toInt64(200000 * exp(2.5 * (intDiv(h, 17) % 10000) / 10000)) AS took,
    fromUnixTimestamp64Micro(toInt64({first:UInt64} + number * {step:UInt64}), 'UTC') AS at
SELECT 'llm.usage.v1', number % 6, intDiv(number, 6), id, id, request_id,
    concat('tenant-', leftPad(toString(tenant_number), 3, '0')), concat('user-', toString(tenant_number * 100 + user_number)),
    if(tenant_number % 3 = 0, 'web', ''), tasks[task_number], 'pro', providers[which], models[which], models[which], 1, 'first',
    if(failed, 'failed', 'succeeded'), if(failed, 'provider_overloaded', ''), if(failed, NULL, tokens_in),
    if(failed, NULL, tokens_in % 3 * 100), if(failed, NULL, tokens_out), if(which > 3, tokens_out % 200, NULL),
    if(failed, NULL, tokens_in * 250), if(failed, NULL, tokens_out * 2000), if(failed, 0, tokens_in * 250 + tokens_out * 2000),
    if(failed, 'not_charged', 'priced'), 'genai-prices', toDate(at), 3000 + h % 5000, intDiv(took, 4), took, took + 8000,
    at, at + INTERVAL 3000 MICROSECOND, at + INTERVAL 6000 MICROSECOND, at + INTERVAL 900 MILLISECOND
FROM (SELECT number, toString(generateUUIDv4(1)) AS id, toString(generateUUIDv4(2)) AS request_id FROM numbers({begin:UInt64}, {count:UInt64}))
"""

#: The answers that `slowest_requests` reads, one for each hundredth call.
ANSWERS = """
INSERT INTO responses (kafka_topic, kafka_partition, kafka_offset, ce_id, request_id, attempt_id, tenant, user, project, task,
    outcome, output_chars, provider, model, cost_nano_usd, cost_status, created_at, admitted_at, started_at, finished_at, attempts)
SELECT 'llm.responses.v1', kafka_partition, kafka_offset, request_id, request_id, attempt_id, tenant, user, project, task,
    if(status = 'failed', 'failed', 'succeeded'), 1000, provider, model, cost_nano_usd, cost_status, created_at, admitted_at,
    started_at, finished_at, attempt
FROM usage WHERE kafka_offset % 100 = 0
"""

Json = dict[str, Any]


def main() -> int:
    """Fill, ask, print and write down."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.analytics", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--facts", type=int, default=5_000_000, help="facts to generate (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="times to ask each statement (default: %(default)s)")
    parser.add_argument("--path", type=Path, help="keep the facts in this folder, and use those that are there")
    arguments = parser.parse_args()
    console = Console()
    with ExitStack() as stack:
        folder = arguments.path or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = ClickHouseServer(folder)
        stack.callback(server.stop)
        server.start()
        settings = Settings(clickhouse_url=server.url, clickhouse_database="millstream")
        migrate_clickhouse(settings)
        with connect(settings) as client:
            filled = fill(client, arguments.facts, console)
            report = {
                "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
                "machine": machine(),
                "versions": versions(str(client.server_version)),
                "settings": {"facts": arguments.facts, "days": DAYS, "rounds": arguments.rounds},
                "filling": filled,
                "tables": sizes(client, arguments.facts),
                "statements": asked(client, arguments.rounds, console),
            }
    for table in tables(report):
        console.print(table)
    RESULTS.write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2) + b"\n")
    console.print(f"Written to {RESULTS.relative_to(ROOT)}.")
    return 0


def fill(client: Client, facts: int, console: Console) -> Json | None:
    """Generate what is missing; rows a second into facts and rollups, None when nothing was."""
    there = int(client.query("SELECT count() FROM usage").result_rows[0][0])
    if there >= facts:
        return None
    step = DAYS * 86_400_000_000 // facts
    first = int(time.time() * 1e6) - DAYS * 86_400_000_000
    began = time.monotonic()
    for begin in track(range(there, facts, BLOCK), "Filling", console=console):
        count = min(BLOCK, facts - begin)
        client.command(FILL, {"step": step, "first": first, "begin": begin, "count": count}, settings=LARGE)
    seconds = time.monotonic() - began
    client.command("TRUNCATE TABLE responses")
    client.command(ANSWERS, settings=LARGE)
    return {"rows": facts - there, "rows_per_second": round((facts - there) / seconds)}


LARGE: Json = {
    "max_insert_threads": 2,
    "parallel_view_processing": 1,
    "max_execution_time": 0,
    "send_progress_in_http_headers": 0,
}


def sizes(client: Client, facts: int) -> list[Json]:
    """Rows and bytes of every table, and bytes for each fact."""
    rows = client.query(
        "SELECT table, sum(rows), sum(bytes_on_disk), count() FROM system.parts WHERE active AND database = currentDatabase() "
        "AND rows > 0 AND table != 'schema_migrations' GROUP BY table ORDER BY 3 DESC"
    ).result_rows
    return [
        {"table": table, "rows": rows, "bytes": size, "parts": parts, "bytes_per_fact": round(size / facts, 1)}
        for table, rows, size, parts in rows
    ]


def statements() -> Iterator[tuple[str, str]]:
    """Every view as a whole, and every statement of the documentation under the words that lead to it."""
    for view in READ_VIEWS:
        yield f"view {view}", f"SELECT * FROM {view} LIMIT 100"  # noqa: S608
    text = (ROOT / "docs" / "analytics.md").read_text("utf-8")
    for found in re.finditer(r"^```sql\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        before = text[: found.start()].rstrip().split("\n\n")
        paragraph = next(part for part in reversed(before) if not part.startswith(("```", "SELECT")))
        tables = " ".join(re.findall(r"(?:FROM|JOIN) (\w+)", found[1]))
        yield f"{paragraph.splitlines()[0][:48]} ({tables})", found[1]


def asked(client: Client, rounds: int, console: Console) -> list[Json]:
    """The times of each statement, in seconds; the first time, when it reads from disk, apart."""
    found = []
    for name, sql in track(list(statements()), "Asking", console=console):
        times: list[float] = []
        entry: Json = {"name": name}
        for _ in range(rounds + 1):
            began = time.perf_counter()
            try:
                entry["rows"] = len(client.query(sql).result_rows)
            except ClickHouseError as error:
                entry["failed"] = str(error).splitlines()[0][:200]
                break
            times.append(time.perf_counter() - began)
        if "failed" not in entry:
            again = sorted(times[1:])
            entry |= {"first": times[0], "p50": again[len(again) // 2], "p95": again[int(len(again) * 0.95)]}
        found.append(entry)
    return found


def tables(report: Json) -> Iterator[Table]:
    """What is printed."""
    facts = report["settings"]["facts"]
    size = Table(title=f"{facts:,} facts over {DAYS} days", title_justify="left", title_style="bold")
    for column in ("table", "rows", "MB", "parts", "bytes a fact"):
        size.add_column(column, justify="left" if column == "table" else "right")
    for one in report["tables"]:
        size.add_row(
            one["table"],
            f"{one['rows']:,}",
            f"{one['bytes'] / 1e6:,.0f}",
            str(one["parts"]),
            f"{one['bytes_per_fact']}",
        )
    yield size
    found = Table(title="Statements, seconds", title_justify="left", title_style="bold")
    for column in ("statement", "first", "p50", "p95", f"≤ {AIM_SECONDS:g}"):
        found.add_column(column, justify="left" if column == "statement" else "right")
    for one in report["statements"]:
        if "failed" in one:
            found.add_row(one["name"], "", "", "", f"[red]{one['failed']}[/]")
        else:
            met = "[green]met[/]" if one["p95"] <= AIM_SECONDS else "[red]not met[/]"
            found.add_row(one["name"], f"{one['first']:.2f}", f"{one['p50']:.2f}", f"{one['p95']:.2f}", met)
    yield found


if __name__ == "__main__":
    raise SystemExit(main())
