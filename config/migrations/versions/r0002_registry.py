"""The tables of the registry."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "providers",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("base_url", sa.String(2048)),
        sa.Column("region", sa.String(64)),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("default", sa.Boolean, nullable=False),
        sa.Column("concurrency", sa.Integer),
    )
    op.create_table(
        "models",
        sa.Column("provider", sa.String(64), primary_key=True),
        sa.Column("name", sa.String(256), primary_key=True),
        sa.Column("aliases", sa.JSON, nullable=False),
        sa.Column("capabilities", sa.JSON, nullable=False),
        sa.Column("context_tokens", sa.Integer),
        sa.Column("tier", sa.String(16), nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("weight", sa.Integer, nullable=False),
        sa.Column("price_override", sa.JSON),
    )
    op.create_table(
        "routes",
        sa.Column("name", sa.String(128), primary_key=True),
        sa.Column("targets", sa.JSON, nullable=False),
        sa.Column("plan", sa.String(256), nullable=False),
        sa.Column("task", sa.String(256), nullable=False),
        sa.Column("tenant", sa.String(256), nullable=False),
        sa.Column("model", sa.String(321)),
        sa.Column("precedence", sa.Integer, nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("valid_from", sa.BigInteger),
        sa.Column("valid_until", sa.BigInteger),
        sa.Column("share", sa.String(32), nullable=False),
        sa.Column("sticky", sa.String(16), nullable=False),
        sa.Column("order", sa.String(16), nullable=False),
        sa.Column("strategies", sa.JSON, nullable=False),
        sa.Column("quality_floor", sa.String(16)),
        sa.Column("fall_back_on", sa.JSON, nullable=False),
        sa.Column("max_attempts", sa.Integer),
        sa.Column("cache_seconds", sa.Integer),
        sa.Column("cache_shared", sa.Boolean, nullable=False),
    )
    op.create_table(
        "health",
        sa.Column("subject", sa.String(321), primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("good_in_a_row", sa.Integer, nullable=False),
        sa.Column("failed_in_a_row", sa.Integer, nullable=False),
        sa.Column("changed_at", sa.BigInteger, nullable=False),
        sa.Column("checked_at", sa.BigInteger, nullable=False),
        sa.Column("last_error", sa.String(1024)),
    )
    op.create_table(
        "registry_audit",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("changed_at", sa.BigInteger, nullable=False),
        sa.Column("changed_by", sa.String(256), nullable=False),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("subject", sa.String(400), nullable=False),
        sa.Column("before", sa.JSON),
        sa.Column("after", sa.JSON),
    )
    op.create_index("registry_audit_changed_at", "registry_audit", ["changed_at"])
    op.create_table(
        "registry_version",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("version", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    """Drop the tables, and with them the registry and its audit."""
    for table in ("registry_version", "registry_audit", "health", "routes", "models", "providers"):
        op.drop_table(table)
