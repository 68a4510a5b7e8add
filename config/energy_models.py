"""The tables of energy (SQLAlchemy): what answers cost, what users were granted, and every movement of it."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, String, Table

from config.models import METADATA
from config.registry_models import COUNTED

#: One row a price; the columns are the fields of `core.energy.EnergyPrice`. An empty text stands for none.
ENERGY_PRICES = Table(
    "energy_prices",
    METADATA,
    Column("task", String(256), primary_key=True),
    Column("model", String(321), primary_key=True),
    Column("tier", String(16), primary_key=True),
    Column("credits", BigInteger, nullable=False),
)

#: One row a grant; `left` is what of it is neither reserved nor consumed nor expired.
ENERGY_GRANTS = Table(
    "energy_grants",
    METADATA,
    Column("grant_id", String(36), primary_key=True),
    Column("account", String(1024), nullable=False),
    Column("granted", BigInteger, nullable=False),
    Column("left", BigInteger, nullable=False),
    Column("granted_at", BigInteger, nullable=False),
    Column("granted_by", String(256), nullable=False),
    Column("expires_at", BigInteger),
    Index("energy_grants_account", "account"),
    Index("energy_grants_expires_at", "expires_at"),
)

#: Two rows a movement of credits of one grant, which sum to zero; see `core.energy.MOVES`. Rows are never changed.
ENERGY_ENTRIES = Table(
    "energy_entries",
    METADATA,
    Column("number", COUNTED, primary_key=True),
    Column("account", String(1024), nullable=False),
    Column("grant_id", String(36), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("book", String(16), nullable=False),
    Column("credits", BigInteger, nullable=False),
    Column("request_id", String(64)),
    Column("at", BigInteger, nullable=False),
    Index("energy_entries_account", "account", "number"),
)
