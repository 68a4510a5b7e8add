"""What a request asked for, as the ledger keeps it."""

from __future__ import annotations

import orjson

from core.limits import Amounts, Asking


def packed_asking(asking: Asking) -> bytes:
    """What a request asked for as bytes; its tiers and what it may do without are not kept."""
    return orjson.dumps([asking.path, asking.task, asking.models, asking.amounts.nano, asking.amounts.tokens])


def unpacked_asking(kept: bytes) -> Asking:
    """What `packed_asking` gave."""
    path, task, models, nano, tokens = orjson.loads(kept)
    return Asking(tuple(path), task, tuple(models), Amounts(nano, tokens))
