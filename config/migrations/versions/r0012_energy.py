"""Energy: prices, grants, the entries of every movement, and what requests hold."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Make the tables and the column."""
    op.create_table(
        "energy_prices",
        sa.Column("task", sa.String(256), primary_key=True),
        sa.Column("model", sa.String(321), primary_key=True),
        sa.Column("tier", sa.String(16), primary_key=True),
        sa.Column("credits", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "energy_grants",
        sa.Column("grant_id", sa.String(36), primary_key=True),
        sa.Column("account", sa.String(1024), nullable=False),
        sa.Column("granted", sa.BigInteger, nullable=False),
        sa.Column("left", sa.BigInteger, nullable=False),
        sa.Column("granted_at", sa.BigInteger, nullable=False),
        sa.Column("granted_by", sa.String(256), nullable=False),
        sa.Column("expires_at", sa.BigInteger),
    )
    op.create_index("energy_grants_account", "energy_grants", ["account"])
    op.create_index("energy_grants_expires_at", "energy_grants", ["expires_at"])
    op.create_table(
        "energy_entries",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("account", sa.String(1024), nullable=False),
        sa.Column("grant_id", sa.String(36), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("book", sa.String(16), nullable=False),
        sa.Column("credits", sa.BigInteger, nullable=False),
        sa.Column("request_id", sa.String(64)),
        sa.Column("at", sa.BigInteger, nullable=False),
    )
    op.create_index("energy_entries_account", "energy_entries", ["account", "number"])
    op.add_column("requests", sa.Column("energy", sa.LargeBinary))


def downgrade() -> None:
    """Drop them, and with them what users have left."""
    op.drop_column("requests", "energy")
    for name in ("energy_entries", "energy_grants", "energy_prices"):
        op.drop_table(name)
