"""The tables of limits (SQLAlchemy): what accounts may use, what they have used, and what they were told of it."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, String, Table

from config.models import METADATA

#: One row a limit; the columns are the fields of `core.limits.Limit`. An empty text stands for none, which a key cannot hold.
LIMITS = Table(
    "limits",
    METADATA,
    Column("account", String(1024), primary_key=True),
    Column("meter", String(16), primary_key=True),
    Column("window", String(8), primary_key=True),
    Column("sliding", Boolean, primary_key=True),
    Column("task", String(256), primary_key=True),
    Column("model", String(321), primary_key=True),
    Column("most", BigInteger, nullable=False),
    Column("hard", Boolean, nullable=False),
)

#: One row a tenant whose calendar windows do not follow UTC; `time_zone` is an IANA name.
TIME_ZONES = Table(
    "time_zones",
    METADATA,
    Column("tenant", String(256), primary_key=True),
    Column("time_zone", String(64), nullable=False),
)

#: One row a cell of a count, see `core.limits.Count`; `told` is what its account has heard of, see `core.shares`. A sliding count has
#: one more, its head (`config.counting`).
COUNTERS = Table(
    "counters",
    METADATA,
    Column("account", String(1024), primary_key=True),
    Column("subject", String(640), primary_key=True),
    Column("begins", BigInteger, primary_key=True),
    Column("used", BigInteger, nullable=False),
    Column("reserved", BigInteger, nullable=False),
    Column("told", Integer, nullable=False),
    Column("ends", BigInteger),
    Index("counters_ends", "ends"),
)

#: One row a share of a limit that an account has reached; `published_at` is null until its alert is with the broker,
#: `ends` where what is used counts until it is given back.
LIMIT_ALERTS = Table(
    "limit_alerts",
    METADATA,
    Column("account", String(1024), primary_key=True),
    Column("subject", String(640), primary_key=True),
    Column("begins", BigInteger, primary_key=True),
    Column("share", Integer, primary_key=True),
    Column("used", BigInteger, nullable=False),
    Column("most", BigInteger, nullable=False),
    Column("raised_at", BigInteger, nullable=False),
    Column("published_at", BigInteger),
    Column("ends", BigInteger),
    Index("limit_alerts_published_at", "published_at"),
)
