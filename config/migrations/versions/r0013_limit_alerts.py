"""When what is used stops counting, beside each share of a limit that an account has reached."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Add the column."""
    op.add_column("limit_alerts", sa.Column("ends", sa.BigInteger))


def downgrade() -> None:
    """Drop it."""
    op.drop_column("limit_alerts", "ends")
