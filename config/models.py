"""The tables of the ledger (SQLAlchemy): what was admitted, which calls were begun, what accounts spent and hold."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, MetaData, String, Table

METADATA = MetaData()

#: One row a request id. `answer` holds the packed events of the answer once it is known; `reserved_nano` the bound that is
#: still held for the request; `candidate` is the place of the model whose turn it is, of the candidates in `plan`. `asking` is
#: what tells the limits that it counts against, `charges` what it holds of them (`config.counting`). What is held for a request
#: that nobody works on is given back at `expires_at`, and `expired_at` says when it was. `energy` is what answers of it
#: cost in its user's credits, and what it holds of these until it has its answer (`config.energy`). `near` tells the limits that
#: were nearly used up when it was admitted. From `cancelled_at` on no further call is made.
REQUESTS = Table(
    "requests",
    METADATA,
    Column("request_id", String(64), primary_key=True),
    Column("body_hash", LargeBinary(32), nullable=False),
    Column("account", String(256), nullable=False),
    Column("window", String(7), nullable=False),
    Column("reserved_nano", BigInteger, nullable=False),
    Column("admitted_at", BigInteger, nullable=False),
    Column("answer", LargeBinary),
    Column("done_at", BigInteger),
    Column("candidate", Integer, nullable=False, default=0, server_default="0"),
    Column("plan", LargeBinary),
    Column("asking", LargeBinary),
    Column("charges", LargeBinary),
    Column("expires_at", BigInteger),
    Column("expired_at", BigInteger),
    Column("energy", LargeBinary),
    Column("near", LargeBinary),
    Column("cancelled_at", BigInteger),
    Index("requests_expires_at", "expires_at"),
    Index("requests_done_at", "done_at"),
)

#: One row a provider call; `ended_at` is null while it is open. `usage` holds the packed usage event. Once it is settled,
#: `charged_nano` is what counts against limits of money: its cost, or its bound where nobody knows that.
ATTEMPTS = Table(
    "attempts",
    METADATA,
    Column("request_id", String(64), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("reason", String(16), nullable=False),
    Column("owner", String(36), nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
    Column("lost", Boolean, nullable=False, default=False),
    Column("usage", LargeBinary),
    Column("cost_nano", BigInteger),
    Column("cost_status", String(16)),
    Column("tokens", BigInteger),
    Column("charged_nano", BigInteger),
    Column("settled", Boolean, nullable=False, default=False),
    Column("candidate", Integer, nullable=False, default=0, server_default="0"),
)

#: One row an account and calendar month (UTC). `unknown_nano` sums the bounds of calls whose cost nobody knows.
ACCOUNTS = Table(
    "accounts",
    METADATA,
    Column("account", String(256), primary_key=True),
    Column("window", String(7), primary_key=True),
    Column("spent_nano", BigInteger, nullable=False),
    Column("reserved_nano", BigInteger, nullable=False),
    Column("unknown_nano", BigInteger, nullable=False),
)

#: One row a price adjustment that has moved money; the call it adjusts may be forgotten by then.
ADJUSTMENTS = Table(
    "adjustments",
    METADATA,
    Column("adjustment_id", String(36), primary_key=True),
    Column("account", String(256), nullable=False),
    Column("window", String(7), nullable=False),
    Column("difference_nano", BigInteger, nullable=False),
)

#: One row a living worker process; a worker whose `alive_until` has passed is taken for dead.
WORKERS = Table(
    "workers",
    METADATA,
    Column("owner", String(36), primary_key=True),
    Column("alive_until", BigInteger, nullable=False),
)
