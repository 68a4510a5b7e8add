"""Routes that hedge, and how long first tokens and answers take."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add the columns; no route hedges yet."""
    op.add_column("routes", sa.Column("hedge", sa.Boolean, nullable=False, server_default=sa.false()))
    for name in ("first_token_p95_us", "answer_p95_us"):
        op.add_column("signals", sa.Column(name, sa.BigInteger))


def downgrade() -> None:
    """Drop the columns."""
    for table, name in (("signals", "answer_p95_us"), ("signals", "first_token_p95_us"), ("routes", "hedge")):
        with op.batch_alter_table(table) as changed:
            changed.drop_column(name)
