"""`millstream sink`: copy events into ClickHouse until SIGTERM."""

from __future__ import annotations

import argparse
import logging
import signal
import threading

from cli import kafka
from cli.stackfile import stack_settings
from config.schema_registry import open_codec
from sinks.rows import FACTS


def describe(parser: argparse.ArgumentParser) -> None:
    """No options: everything comes from the settings."""


def run(_: argparse.Namespace) -> int:
    """Run the sink; it retries while ClickHouse is away and stops on SIGTERM."""
    from sinks import consumer
    from sinks.metrics import SinkMetrics
    from sinks.metrics_server import serving

    settings = stack_settings()
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    kafka.need_topics(settings, [fact.topic for fact in FACTS])
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    metrics = SinkMetrics(settings)
    with serving(settings, metrics):
        consumer.run(settings, stopped.is_set, open_codec(settings), metrics)
    return 0
