"""What ends abandoned calls, with the tools of a worker process."""

from __future__ import annotations

from agents.abandoned import AbandonedCalls
from agents.chunks import Send
from agents.outgoing import Encoder
from config.transactions import Transactions
from streams.tools import Tools


def abandoned_calls(tools: Tools, ledger: Transactions, send: Send) -> AbandonedCalls:
    """What looks for them in a ledger of this process; `send` puts their events on the broker."""
    return AbandonedCalls(ledger, Encoder(tools.codec, "meter", tools.clock), send, tools.clock, tools.owner)
