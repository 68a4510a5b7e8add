"""Serve the sink's metrics, liveness and readiness over HTTP, on threads of their own."""

from __future__ import annotations

import logging
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from prometheus_client import CollectorRegistry

from config.kafka import librdkafka
from config.monitoring import metrics_page, port_refused, readiness
from config.settings import Settings, SettingsError
from sinks.metrics import SinkMetrics

LOG = logging.getLogger(__name__)
STORE_SECONDS = 2.0


@contextmanager
def serving(
    settings: Settings, registry: CollectorRegistry, problem: Callable[[], str | None]
) -> Iterator[None]:  # fmt: skip
    """Serve `/metrics`, `/healthz` and `/readyz` inside a `with` block, if `metrics_port` names a port.

    `problem` says why the process is not ready, None when it is.

    Raises `SettingsError` when the port is taken.
    """
    host, port = settings.metrics_host, settings.metrics_port
    if not port:
        yield
        return
    try:
        server = ThreadingHTTPServer((host, port), _handler(registry, problem))
    except OSError as why:
        raise SettingsError(port_refused(host, port, why)) from None
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    LOG.info("Metrics, /healthz and /readyz are on http://%s:%d.", host, port)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


class Readiness:
    """Asks whether the sink could store a record now."""

    def __init__(self, settings: Settings, metrics: SinkMetrics) -> None:
        url = urlsplit(settings.clickhouse_url)
        self._clickhouse = f"{url.scheme}://{url.netloc.rpartition('@')[2]}"
        self._kafka = settings.kafka_bootstrap
        self._reach = {**librdkafka(settings), "log_level": 0}
        self._metrics = metrics

    @cached_property
    def _admin(self) -> AdminClient:
        """Made when it is first asked for: a process without a page needs none."""
        return AdminClient(self._reach)

    def problem(self) -> str | None:
        """Why the sink is not ready, None when it is."""
        try:
            self._admin.list_topics(timeout=STORE_SECONDS)
        except KafkaException:
            return f"Kafka at {self._kafka} does not answer."
        try:
            urllib.request.urlopen(f"{self._clickhouse}/ping", timeout=STORE_SECONDS).close()
        except (urllib.error.URLError, OSError):
            return f"ClickHouse at {self._clickhouse} does not answer."
        if not (places := self._metrics.places()):
            return "No partitions are assigned to this sink."
        if troubled := [place for place in places if place.problem]:
            first = troubled[0]
            return f"A batch of {first.topic} partition {first.partition} {first.problem}."
        return None


def _handler(registry: CollectorRegistry, problem: Callable[[], str | None]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            match self.path.partition("?")[0]:
                case "/metrics":
                    body, content_type = metrics_page(registry, self.headers.get("Accept", ""))
                    self._answer(200, body, content_type)
                case "/healthz":
                    self._answer(200, b'{"alive": true}', "application/json")
                case "/readyz":
                    self._answer(*readiness(problem()), "application/json")
                case _:
                    self._answer(404, b"There is /metrics, /healthz and /readyz.", "text/plain")

        def _answer(self, status: int, body: bytes, content_type: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing: a line for every scrape helps nobody."""

    return Handler
