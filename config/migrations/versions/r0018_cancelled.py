"""When the callers of requests gave them up."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    """Add the column; no request is given up yet."""
    op.add_column("requests", sa.Column("cancelled_at", sa.BigInteger))


def downgrade() -> None:
    """Drop the column."""
    with op.batch_alter_table("requests") as changed:
        changed.drop_column("cancelled_at")
