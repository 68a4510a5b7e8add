"""The response cache, and the calls that equal requests wait for together."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "cached_answers",
        sa.Column("cache_key", sa.LargeBinary(32), primary_key=True),
        sa.Column("request_id", sa.String(64), nullable=False),
        sa.Column("tenant", sa.String(256), nullable=False),
        sa.Column("answer", sa.LargeBinary, nullable=False),
        sa.Column("cost_nano", sa.BigInteger),
        sa.Column("kept_until", sa.BigInteger, nullable=False),
    )
    op.create_index("cached_answers_kept_until", "cached_answers", ["kept_until"])
    op.create_table(
        "shared_calls",
        sa.Column("cache_key", sa.LargeBinary(32), primary_key=True),
        sa.Column("request_id", sa.String(64), nullable=False),
        sa.Column("taken_at", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    """Drop the tables, and with them the cache."""
    op.drop_table("shared_calls")
    op.drop_table("cached_answers")
