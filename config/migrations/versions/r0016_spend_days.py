"""What tenants spend by day, and the days on which it was unusual."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "spend_days",
        sa.Column("tenant", sa.String(256), primary_key=True),
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("before_nano", sa.BigInteger, nullable=False),
        sa.Column("spent_nano", sa.BigInteger, nullable=False),
        sa.Column("whole", sa.Boolean, nullable=False),
        sa.Column("raised_at", sa.BigInteger),
        sa.Column("raised_nano", sa.BigInteger),
        sa.Column("known", sa.Integer),
        sa.Column("mean_nano", sa.BigInteger),
        sa.Column("greatest_nano", sa.BigInteger),
        sa.Column("published_at", sa.BigInteger),
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_table("spend_days")
