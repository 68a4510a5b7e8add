"""What each settled call counts against limits of money."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Make the column; calls that were settled before count with their cost, or with their request's bound."""
    op.add_column("attempts", sa.Column("charged_nano", sa.BigInteger))


def downgrade() -> None:
    """Drop it."""
    op.drop_column("attempts", "charged_nano")
