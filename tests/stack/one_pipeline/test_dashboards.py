"""The dashboards: as the code builds them, and every query of theirs run or parsed by what it is for."""

from __future__ import annotations

import json
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from cli.dashboards import FOLDER, generated, queries
from cli.running import Running
from config import limits
from config.database import open_database
from core.limits import Limit
from core.topics import REQUESTS
from local.processes import Child, free_port, wait_until
from tests.promtool import PROMETHEUS, program, promtool
from tests.stack.asking import ask, eventually, told
from tests.stack.scrape import get, scrape, workers

BOARDS = {path.name: path.read_text("utf-8") for path in sorted(FOLDER.glob("*.json"))}
SQL = [(title, query["rawSql"]) for text in BOARDS.values() for title, query in queries(text) if "rawSql" in query]
PROMQL = [(title, query["expr"]) for text in BOARDS.values() for title, query in queries(text) if "expr" in query]


def as_grafana_sends(sql: str) -> str:
    """The statement with the ClickHouse plugin's macros replaced as the plugin does it, for the last hour and tenant acme.

    https://github.com/grafana/clickhouse-datasource/blob/main/pkg/macros/macros.go
    """
    now = int(time.time())
    sql = sql.replace("$__conditionalAll(tenant IN (${tenant:singlequote}), $tenant)", "tenant IN ('acme')")
    between = rf"\1 >= toDateTime({now - 3_600}) AND \1 <= toDateTime({now + 60})"
    sql = re.sub(r"\$__timeFilter\((\w+)\)", between, sql)
    return re.sub(r"\$__timeInterval\((\w+)\)", r"toStartOfInterval(toDateTime(\1), INTERVAL 60 second)", sql)


def rows(run: Running, sql: str) -> list[dict[str, object]]:
    """What ClickHouse answers; AssertionError with its complaint."""
    url = f"{run.settings.clickhouse_url}/?database={run.settings.clickhouse_database}&default_format=JSONEachRow"
    try:
        with urllib.request.urlopen(url, sql.encode(), timeout=30) as answer:
            return [json.loads(line) for line in answer.read().decode().splitlines()]
    except urllib.error.HTTPError as refused:
        raise AssertionError(refused.read().decode()) from None


def traffic() -> list[dict[str, Any]]:
    """Requests of every kind that a panel shows: good, failed, unpriced, refused by a limit."""
    return [
        told("One"),
        told("Two", sim={"status": 400}),
        told("Three", model="openai/gpt-unpriced"),
        told("Four", model="anthropic/claude-sonnet-4-5"),
        told("Five", user="spent"),
    ]


@pytest.fixture(scope="module")
def filled(pipeline: Running) -> Iterator[Running]:
    """The pipeline after traffic of every kind."""
    engine = open_database(pipeline.settings.database_url)
    spent, soft = Limit("/acme/user:spent", "usd", "month", 0), Limit("/acme", "usd", "month", 1, hard=False)
    with engine.begin() as db:
        limits.change(db, limits.Edit([spent, soft]), "test", 1)
    asked = traffic()
    answers = ask(pipeline, asked)
    assert len(answers) == 5
    ids = ", ".join(f"'{request['request_id']}'" for request in asked)
    assert eventually(lambda: rows(pipeline, f"SELECT 1 FROM usage WHERE request_id IN ({ids}) HAVING count() = 4"))
    assert eventually(lambda: rows(pipeline, f"SELECT 1 FROM responses WHERE request_id IN ({ids}) HAVING count() = 5"))
    assert eventually(lambda: rows(pipeline, "SELECT 1 FROM alerts WHERE kind = 'limit_reached'"))
    yield pipeline
    with engine.begin() as db:
        limits.change(db, limits.Edit(remove=[spent, soft]), "test", 2)
    engine.dispose()


def test_the_files_are_what_the_code_builds() -> None:
    """Nobody edited a dashboard by hand or forgot `make dashboards`."""
    assert {path.name: text for path, text in generated().items()} == BOARDS


@pytest.mark.parametrize(("title", "sql"), SQL, ids=[title for title, _ in SQL])
def test_a_clickhouse_panel_shows_something(filled: Running, title: str, sql: str) -> None:
    """The panel's query is taken by ClickHouse and, after traffic of every kind, finds rows of plain values."""
    sent = as_grafana_sends(sql)
    assert "$" not in sent
    found = rows(filled, sent)
    # Whether there are dead letters is a matter of what ran before.
    assert found or title == "Dead letters"
    assert all(not isinstance(value, list | dict) for row in found for value in row.values())
    if "$__timeInterval" in sql:
        assert all(next(iter(row)) == "time" for row in found)


def test_prometheus_parses_every_expression(tmp_path: Path) -> None:
    """Each PromQL expression of a dashboard is one, by Prometheus' own parser."""
    rules = [
        {"record": f"panel:{number}", "expr": expression.replace("$__rate_interval", "1m")}
        for number, (_, expression) in enumerate(PROMQL)
    ]
    path = tmp_path / "rules.yml"
    path.write_text(json.dumps({"groups": [{"name": "dashboards", "rules": rules}]}))
    promtool("check", "rules", path)


@pytest.fixture(scope="module")
def prometheus(filled: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus server that scrapes the pipeline's workers every second and evaluates the alert rules; its address."""
    folder = tmp_path_factory.mktemp("prometheus")
    targets = [filled.monitoring[worker].removeprefix("http://") for worker in workers(filled)]
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(PROMETHEUS / "alerts.yml")],
        "scrape_configs": [{"job_name": "millstream", "static_configs": [{"targets": targets}]}],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))
    port = free_port()
    server = Child(
        [
            *(program("prometheus"), f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"),
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        log_path=folder / "prometheus.log",
        name="Prometheus",
    )
    url = f"http://127.0.0.1:{port}"
    try:
        # Two scrapes of each: a rate is made of two samples.
        wait_until(lambda: _scraped(url, "min(count_over_time(up[1h])) >= 3"), 60.0, "Prometheus to scrape", server)
        yield url
    finally:
        server.stop()


def _scraped(url: str, expression: str) -> bool:
    try:
        return bool(evaluated(url, expression))
    except (OSError, ValueError):  # it does not answer yet, or not in JSON
        return False


def evaluated(url: str, expression: str) -> list[Any]:
    """What Prometheus finds for an expression now; AssertionError with its complaint."""
    status, text = get(f"{url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}")
    answer = json.loads(text)
    assert status == 200, f"{expression}: {answer['error']}"
    found: list[Any] = answer["data"]["result"]
    return found


def test_prometheus_finds_what_every_panel_shows(filled: Running, prometheus: str) -> None:
    """A real server scrapes every worker, and each dashboard's expression finds samples while there is traffic of every kind."""
    assert not evaluated(prometheus, "up == 0")
    producer = Producer({"bootstrap.servers": filled.settings.kafka_bootstrap})
    producer.produce(REQUESTS.on(filled.settings.topic_prefix), b"junk")
    assert producer.flush(10) == 0
    assert len(ask(filled, traffic())) == 5
    empty = dict(PROMQL)

    def all_found() -> bool:
        for title, expression in list(empty.items()):
            if evaluated(prometheus, expression.replace("$__rate_interval", "1m")):
                del empty[title]
        return not empty

    assert eventually(all_found), f"Nothing is found for {', '.join(empty)}."


def test_prometheus_evaluates_every_alert_rule(prometheus: str) -> None:
    """No rule fails on the metrics that the workers really have."""

    def rules() -> list[dict[str, Any]]:
        groups = json.loads(get(f"{prometheus}/api/v1/rules")[1])["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    wait_until(lambda: all(rule["health"] != "unknown" for rule in rules()), 60.0, "the rules to be evaluated")
    assert len(rules()) == (PROMETHEUS / "alerts.yml").read_text("utf-8").count("- alert:")
    assert [(rule["name"], rule.get("lastError")) for rule in rules() if rule["health"] != "ok"] == []


def test_every_metric_that_is_asked_for_exists(filled: Running) -> None:
    """Each name in a dashboard or an alert rule stands, with the labels it is selected by, on a running worker's page."""
    alerts = re.findall(r"expr: (?:\|-\n((?: {10,}.*\n)+)|(.*))", (PROMETHEUS / "alerts.yml").read_text("utf-8"))
    expressions = [expression for _, expression in PROMQL] + [many or one for many, one in alerts]
    assert len(expressions) > 30
    missing: list[str] = []

    def all_stand() -> bool:
        """Whether they all do; some come with a worker's first health check or first refresh."""
        labels: dict[str, set[str]] = {}
        for worker in workers(filled):
            for name, pairs in scrape(filled, worker):
                labels.setdefault(name, set()).update(label for label, _ in pairs)
        missing[:] = [f"{lack}: {expression}" for expression in expressions for lack in lacking(expression, labels)]
        return not missing

    assert eventually(all_stand), "\n".join(missing)


def lacking(expression: str, labels: dict[str, set[str]]) -> Iterator[str]:
    """What of an expression stands on no page: metrics, labels they are selected by, labels they are grouped by."""
    asked = re.findall(
        r"\b((?:millstream|gen_ai_client|process|orchestrator|provider)_\w+)(?:\{([^}]*)\})?", expression
    )
    for name, selector in asked:
        if name in {label for found in labels.values() for label in found}:
            continue
        wanted = set(re.findall(r"(\w+)\s*(?:=|!=)", selector)) - {"job", "instance"}
        if name not in labels:
            yield f"no worker has the metric {name}"
        elif not wanted <= labels[name]:
            yield f"{name} has no label {wanted - labels[name]}"
    grouped = {label for found in re.findall(r"by \(([^)]*)\)", expression) for label in found.split(", ")}
    has = {label for name, _ in asked for label in labels.get(name, ())} | {"job", "instance"}
    if not grouped <= has:
        yield f"nothing has the label {grouped - has}"
