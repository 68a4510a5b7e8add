"""The table of credentials: keys of providers, the platform's and the tenants' own, encrypted."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, String, Table

from config.models import METADATA

#: One row a credential; `tenant` is null for the platform's. Revoking empties the last four columns.
CREDENTIALS = Table(
    "credentials",
    METADATA,
    Column("credential_id", String(40), primary_key=True),
    Column("provider", String(64), nullable=False),
    Column("tenant", String(256)),
    Column("label", String(256), nullable=False),
    Column("last_four", String(4), nullable=False),
    Column("weight", Integer, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("rotated_at", BigInteger),
    Column("revoked_at", BigInteger),
    Column("key_version", Integer, nullable=False),
    Column("kek_id", String(512)),
    Column("wrapped_key", LargeBinary),
    Column("nonce", LargeBinary),
    Column("ciphertext", LargeBinary),
    Index("credentials_provider", "provider", "tenant"),
)
