"""Limits, what counts against them, and what requests hold of them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Make the tables and the columns."""
    op.create_table(
        "limits",
        sa.Column("account", sa.String(1024), primary_key=True),
        sa.Column("meter", sa.String(16), primary_key=True),
        sa.Column("window", sa.String(8), primary_key=True),
        sa.Column("sliding", sa.Boolean, primary_key=True),
        sa.Column("task", sa.String(256), primary_key=True),
        sa.Column("model", sa.String(321), primary_key=True),
        sa.Column("most", sa.BigInteger, nullable=False),
        sa.Column("hard", sa.Boolean, nullable=False),
    )
    op.create_table(
        "time_zones",
        sa.Column("tenant", sa.String(256), primary_key=True),
        sa.Column("time_zone", sa.String(64), nullable=False),
    )
    op.create_table(
        "counters",
        sa.Column("account", sa.String(1024), primary_key=True),
        sa.Column("subject", sa.String(640), primary_key=True),
        sa.Column("begins", sa.BigInteger, primary_key=True),
        sa.Column("used", sa.BigInteger, nullable=False),
        sa.Column("reserved", sa.BigInteger, nullable=False),
        sa.Column("told", sa.Integer, nullable=False),
        sa.Column("ends", sa.BigInteger),
    )
    op.create_index("counters_ends", "counters", ["ends"])
    op.create_table(
        "limit_alerts",
        sa.Column("account", sa.String(1024), primary_key=True),
        sa.Column("subject", sa.String(640), primary_key=True),
        sa.Column("begins", sa.BigInteger, primary_key=True),
        sa.Column("share", sa.Integer, primary_key=True),
        sa.Column("used", sa.BigInteger, nullable=False),
        sa.Column("most", sa.BigInteger, nullable=False),
        sa.Column("raised_at", sa.BigInteger, nullable=False),
        sa.Column("published_at", sa.BigInteger),
    )
    op.create_index("limit_alerts_published_at", "limit_alerts", ["published_at"])
    op.add_column("requests", sa.Column("asking", sa.LargeBinary))
    op.add_column("requests", sa.Column("charges", sa.LargeBinary))
    op.add_column("requests", sa.Column("expires_at", sa.BigInteger))
    op.add_column("requests", sa.Column("expired_at", sa.BigInteger))
    op.create_index("requests_expires_at", "requests", ["expires_at"])
    op.add_column("attempts", sa.Column("tokens", sa.BigInteger))


def downgrade() -> None:
    """Drop them, and with them what accounts have used of their limits."""
    op.drop_column("attempts", "tokens")
    op.drop_index("requests_expires_at", "requests")
    for name in ("expired_at", "expires_at", "charges", "asking"):
        op.drop_column("requests", name)
    for name in ("limit_alerts", "counters", "time_zones", "limits"):
        op.drop_table(name)
