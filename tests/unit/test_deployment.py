"""The files of a deployment agree with each other: the compose file, Prometheus' configuration, Grafana's data sources."""

from __future__ import annotations

import re
from pathlib import Path

from cli.dashboards import CLICKHOUSE, FOLDER, PROMETHEUS

ROOT = Path(__file__).parent.parent.parent
COMPOSE = (ROOT / "docker-compose.kafka.yml").read_text("utf-8")


def test_prometheus_reads_every_worker_of_the_compose_file() -> None:
    """The names that Prometheus looks up are the services that run a stage or the sink, on the port that they open."""
    services = re.split(r"^  (?=[\w-]+:$)", COMPOSE.partition("\nservices:\n")[2], flags=re.MULTILINE)
    workers = {text.partition(":")[0] for text in services if re.search(r"command: \[(worker|sink)\b", text)}
    scraped = (ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text("utf-8")
    assert set(re.findall(r"^ {10}- ([\w-]+)$", scraped, re.MULTILINE)) == workers
    port = re.findall(r'MILLSTREAM_METRICS_PORT: "(\d+)"', COMPOSE)
    assert re.findall(r"port: (\d+)", scraped) == port
    assert re.findall(r"127\.0\.0\.1:(\d+)/readyz", COMPOSE) == port


def test_what_the_compose_file_mounts_is_here() -> None:
    """Every folder of the repository that a service mounts exists."""
    mounted = re.findall(r"- \./([\w/]+):", COMPOSE)
    assert len(mounted) == 4
    assert all((ROOT / folder).is_dir() for folder in mounted)
    provider = (ROOT / "deploy/grafana/provisioning/dashboards/millstream.yml").read_text("utf-8")
    inside = dict(re.findall(r"- \./([\w/]+):(/[\w/]+):ro", COMPOSE))
    assert f"path: {inside[FOLDER.relative_to(ROOT).as_posix()]}" in provider


def test_dashboards_name_the_data_sources_that_are_there() -> None:
    """The data sources are provisioned under the uids and types that the dashboards name."""
    sources = (ROOT / "deploy/grafana/provisioning/datasources/millstream.yml").read_text("utf-8")
    found = re.findall(r"uid: (\S+)\n +type: (\S+)", sources)
    assert found == [(source.uid, source.type_val) for source in (PROMETHEUS, CLICKHOUSE)]
    text = "".join(path.read_text("utf-8") for path in FOLDER.glob("*.json"))
    assert set(re.findall(r'"uid": "(prometheus|clickhouse)"', text)) == {"prometheus", "clickhouse"}
