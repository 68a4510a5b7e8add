"""API keys that applications ask with."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "issued_keys",
        sa.Column("key_id", sa.String(40), primary_key=True),
        sa.Column("tenant", sa.String(256), nullable=False),
        sa.Column("user", sa.String(256)),
        sa.Column("project", sa.String(256)),
        sa.Column("models", sa.JSON, nullable=False),
        sa.Column("label", sa.String(256), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger),
        sa.Column("revoked_at", sa.BigInteger),
        sa.Column("kek_id", sa.String(512)),
        sa.Column("wrapped_key", sa.LargeBinary),
        sa.Column("nonce", sa.LargeBinary),
        sa.Column("ciphertext", sa.LargeBinary),
    )
    op.create_index("issued_keys_tenant", "issued_keys", ["tenant"])


def downgrade() -> None:
    """Drop it; nobody can ask with those keys any more."""
    op.drop_table("issued_keys")
