"""The publisher of the limits' alerts, with the tools of a worker process."""

from __future__ import annotations

from agents.chunks import Send
from agents.limit_alerts import LimitAlerts
from agents.outgoing import Encoder
from streams.tools import Tools


def limit_alerts(tools: Tools, send: Send) -> LimitAlerts:
    """What publishes alerts while this worker has the duty; `send` puts them on the broker."""
    return LimitAlerts(tools.transactions, Encoder(tools.codec, "meter", tools.clock), send, tools.clock, tools.owner)
