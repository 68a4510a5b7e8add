"""The tables of the ledger.

Each is made only where it is missing: databases from before there were revisions have them.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables that are missing."""
    op.create_table(
        "requests",
        sa.Column("request_id", sa.String(64), primary_key=True),
        sa.Column("body_hash", sa.LargeBinary(32), nullable=False),
        sa.Column("account", sa.String(256), nullable=False),
        sa.Column("window", sa.String(7), nullable=False),
        sa.Column("reserved_nano", sa.BigInteger, nullable=False),
        sa.Column("admitted_at", sa.BigInteger, nullable=False),
        sa.Column("answer", sa.LargeBinary),
        sa.Column("done_at", sa.BigInteger),
        if_not_exists=True,
    )
    op.create_index("requests_done_at", "requests", ["done_at"], if_not_exists=True)
    op.create_table(
        "attempts",
        sa.Column("request_id", sa.String(64), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("reason", sa.String(16), nullable=False),
        sa.Column("owner", sa.String(36), nullable=False),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("ended_at", sa.BigInteger),
        sa.Column("lost", sa.Boolean, nullable=False),
        sa.Column("usage", sa.LargeBinary),
        sa.Column("cost_nano", sa.BigInteger),
        sa.Column("cost_status", sa.String(16)),
        sa.Column("settled", sa.Boolean, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "accounts",
        sa.Column("account", sa.String(256), primary_key=True),
        sa.Column("window", sa.String(7), primary_key=True),
        sa.Column("spent_nano", sa.BigInteger, nullable=False),
        sa.Column("reserved_nano", sa.BigInteger, nullable=False),
        sa.Column("unknown_nano", sa.BigInteger, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "adjustments",
        sa.Column("adjustment_id", sa.String(36), primary_key=True),
        sa.Column("account", sa.String(256), nullable=False),
        sa.Column("window", sa.String(7), nullable=False),
        sa.Column("difference_nano", sa.BigInteger, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "workers",
        sa.Column("owner", sa.String(36), primary_key=True),
        sa.Column("alive_until", sa.BigInteger, nullable=False),
        if_not_exists=True,
    )


def downgrade() -> None:
    """Drop the tables, and with them everything that the ledger knows."""
    for table in ("workers", "adjustments", "accounts", "attempts", "requests"):
        op.drop_table(table)
