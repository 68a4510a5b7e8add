"""`millstream sink`: copy events into ClickHouse, or alerts to webhooks, until SIGTERM."""

from __future__ import annotations

import argparse
import logging
import signal
import threading

from cli import kafka
from cli.stackfile import stack_settings
from config.schema_registry import open_codec
from core.topics import ALERTS
from sinks.rows import FACTS


def describe(parser: argparse.ArgumentParser) -> None:
    """What the sink is; everything else comes from the settings."""
    parser.add_argument(
        "to", nargs="?", choices=("clickhouse", "webhooks"), default="clickhouse",
        help="where events go: all to ClickHouse (default), or alerts to MILLSTREAM_ALERT_WEBHOOKS",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Run the sink; it retries while its store or a webhook is away and stops on SIGTERM."""
    from sinks import consumer, webhooks
    from sinks.metrics import SinkMetrics
    from sinks.metrics_server import Readiness, serving
    from sinks.webhook_metrics import WebhookMetrics

    settings = stack_settings()
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    to_webhooks = arguments.to == "webhooks"
    hosts = [receiver.host for receiver in webhooks.receivers_of(settings)[0]] if to_webhooks else []
    kafka.need_topics(settings, [ALERTS] if to_webhooks else [fact.topic for fact in FACTS])
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    if to_webhooks:
        sent = WebhookMetrics(hosts)
        with serving(settings, sent.registry, sent.problem):
            webhooks.run(settings, stopped.is_set, open_codec(settings), sent)
        return 0
    metrics = SinkMetrics(settings)
    with serving(settings, metrics.registry, Readiness(settings, metrics).problem):
        consumer.run(settings, stopped.is_set, open_codec(settings), metrics)
    return 0
