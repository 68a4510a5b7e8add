"""What the stages of one worker process share, made of its settings."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from agents.callers import AsTheySay, Callers, SignedCallers
from agents.cancel import Cancellations
from agents.ledgers import Ledgers
from agents.outgoing import Clock
from agents.signals import Signals
from agents.standings import Standings
from config.credentials import stored_credentials
from config.database import open_database
from config.issued_keys import issued_keys
from config.key_encryption import encryption_keys
from config.keyring import Keyring
from config.settings import Settings
from config.snapshot import Snapshot, read_registry
from config.transactions import Transactions
from core.breaker import BreakerRule
from core.registry import Registry
from schemas.codec import Codec
from streams.metrics import Metrics
from streams.reply_topics import ReplyTopics


@dataclass(frozen=True, slots=True)
class Tools:
    """What the stages of one worker process share; `at_exit` closes what is open when they have ended."""

    settings: Settings
    codec: Codec
    ledgers: Ledgers
    clock: Clock
    owner: str
    metrics: Metrics
    snapshot: Snapshot
    keyring: Keyring
    signals: Signals
    standings: Standings
    reply_topics: ReplyTopics
    callers: Callers
    cancellations: Cancellations
    at_exit: AsyncExitStack

    @property
    def transactions(self) -> Transactions:
        """Transactions of the ledger, whose database is the registry's too."""
        return self.ledgers.main

    def registry(self) -> Registry:
        """The registry to work by now."""
        return self.snapshot.registry


def now_us() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1_000


def open_tools(settings: Settings, codec: Codec, refused: Callable[[Sequence[str]], None]) -> Tools:
    """The tools of this process under a new owner id; `refused` hears what keeps a changed registry from being used."""
    metrics, owner = Metrics(), str(uuid.uuid4())
    engine = open_database(settings.database_url)
    batches = settings.ledger_batch_max, settings.ledger_linger_seconds
    transactions = Transactions(engine, *batches, metrics.transaction_done)
    spare = None
    if settings.spare_database_url is not None:
        spare = Transactions(open_database(settings.spare_database_url), *batches)
    rule = BreakerRule(
        window_us=int(settings.breaker_window_seconds * 1_000_000),
        open_us=int(settings.breaker_open_seconds * 1_000_000),
    )
    encryption = encryption_keys(settings.key_encryption)
    keyring, signals = Keyring(encryption), Signals(owner, now_us, rule)
    signed = SignedCallers(encryption, now_us) if settings.trust == "signed" else None

    def read() -> Registry:
        # A key that was revoked is out of use also while the registry cannot be used.
        if signed is not None:
            signed.load(issued_keys(engine))
        keyring.load(stored_credentials(engine))
        return read_registry(engine, settings)

    tools = Tools(
        settings, codec, Ledgers(transactions, spare, settings.spare_after_seconds), now_us, owner, metrics,
        Snapshot(read, settings.registry_refresh_seconds, refused), keyring, signals,
        Standings(
            transactions, signals, now_us, lambda heard: metrics.routing.standings_heard(heard, signals.states())
        ),
        ReplyTopics(settings), signed or AsTheySay(), Cancellations(), AsyncExitStack(),
    )  # fmt: skip
    tools.at_exit.push_async_callback(tools.snapshot.close)
    tools.at_exit.push_async_callback(tools.reply_topics.close)
    return tools
