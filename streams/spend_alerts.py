"""The publisher of alerts about unusual spend, with the tools of a worker process."""

from __future__ import annotations

from agents.chunks import Send
from agents.outgoing import Encoder
from agents.spend_alerts import SpendAlerts
from core.limits import NANO
from core.spending import Rule
from streams.tools import Tools


def spend_alerts(tools: Tools, send: Send) -> SpendAlerts:
    """What looks at spend and publishes alerts while this worker has the duty; `send` puts them on the broker."""
    rule = Rule(tools.settings.spend_anomaly_factor, int(tools.settings.spend_anomaly_floor_usd * NANO))
    encoder = Encoder(tools.codec, "meter", tools.clock)
    return SpendAlerts(tools.transactions, encoder, send, tools.clock, tools.owner, rule)
