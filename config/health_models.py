"""The tables of health beside the registry's own (SQLAlchemy): who checks, and what workers saw of their calls."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, String, Table

from config.models import METADATA

#: One row a duty that one worker at a time has, until when it is its holder's.
LEASES = Table(
    "leases",
    METADATA,
    Column("name", String(64), primary_key=True),
    Column("owner", String(36), nullable=False),
    Column("held_until", BigInteger, nullable=False),
)

#: One row a worker, model and credential; the columns are the fields of `core.signals.Signal`.
SIGNALS = Table(
    "signals",
    METADATA,
    Column("provider", String(64), primary_key=True),
    Column("model", String(256), primary_key=True),
    Column("credential_id", String(64), primary_key=True),
    Column("owner", String(36), primary_key=True),
    Column("good", Integer, nullable=False),
    Column("bad", Integer, nullable=False),
    Column("p50_us", BigInteger),
    Column("open_until", BigInteger),
    Column("resting_until", BigInteger),
    Column("at", BigInteger, nullable=False),
    Column("bad_at", BigInteger),
    Column("first_token_p95_us", BigInteger),
    Column("answer_p95_us", BigInteger),
)
