"""The tables of health beside the registry's own."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "leases",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("owner", sa.String(36), nullable=False),
        sa.Column("held_until", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "signals",
        sa.Column("provider", sa.String(64), primary_key=True),
        sa.Column("model", sa.String(256), primary_key=True),
        sa.Column("credential_id", sa.String(64), primary_key=True),
        sa.Column("owner", sa.String(36), primary_key=True),
        sa.Column("good", sa.Integer, nullable=False),
        sa.Column("bad", sa.Integer, nullable=False),
        sa.Column("p50_us", sa.BigInteger),
        sa.Column("open_until", sa.BigInteger),
        sa.Column("resting_until", sa.BigInteger),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("bad_at", sa.BigInteger),
    )


def downgrade() -> None:
    """Drop the tables."""
    for table in ("signals", "leases"):
        op.drop_table(table)
