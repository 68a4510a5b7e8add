"""Build the Faust app of one worker."""

from __future__ import annotations

import tempfile
from pathlib import Path

import faust
from faust.types.auth import CredentialsT
from yarl import URL

from config.kafka import aiokafka
from config.settings import Settings
from streams.header_names import read_leniently
from streams.transport import QuietMonitor, Transport

#: Records that Faust may hold for a stage beyond those the stage works on; small, so that a full lane stops fetching.
STREAM_BUFFER = 256


def build_app(group: str, settings: Settings) -> faust.App:
    """A Faust app that reads raw bytes as consumer group `group` and leaves every acknowledgement to the lanes."""
    read_leniently()
    brokers = [URL(f"kafka://{address.strip()}") for address in settings.kafka_bootstrap.split(",")]
    session = settings.session_timeout_seconds
    app = faust.App(
        group,
        broker=brokers,
        broker_credentials=credentials(settings),
        store="memory://",
        # Faust wants a folder for tables, which no stage has.
        datadir=str(Path(tempfile.gettempdir()) / "millstream-faust"),
        web_enabled=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        key_serializer="raw",
        value_serializer="raw",
        consumer_auto_offset_reset="earliest",
        stream_wait_empty=False,
        stream_buffer_maxsize=STREAM_BUFFER,
        stream_recovery_delay=0.0,
        broker_commit_interval=settings.commit_interval_seconds,
        broker_session_timeout=session,
        broker_heartbeat_interval=min(3.0, session / 4),
        broker_rebalance_timeout=settings.rebalance_timeout_seconds,
        broker_request_timeout=max(40.0, session + 10.0),
        # A full lane reads nothing for as long as its provider is slow; that is no reason to leave the group.
        broker_max_poll_interval=86_400.0,
        producer_acks=-1,
        producer_max_request_size=settings.max_record_bytes,
        consumer_max_fetch_size=settings.max_record_bytes,
        Monitor=QuietMonitor,
    )
    app.transport = Transport(brokers, app, app.loop)
    app.producer_transport = Transport(brokers, app, app.loop)
    return app


def credentials(settings: Settings) -> CredentialsT | None:
    """Faust's own form of what aiokafka is told; None where Kafka asks for nothing."""
    told = aiokafka(settings)
    tls = told.get("ssl_context")
    if settings.kafka_sasl:
        return faust.SASLCredentials(
            username=told["sasl_plain_username"], password=told["sasl_plain_password"],
            mechanism=told["sasl_mechanism"], ssl_context=tls,
        )  # fmt: skip
    return faust.SSLCredentials(tls) if tls is not None else None
