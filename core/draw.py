"""Numbers that look drawn and follow from names alone, so that every worker and every repetition draws the same."""

from __future__ import annotations

from hashlib import blake2b

#: Draws are whole numbers from 0 up to below this.
DRAWS = 2**64


def draw(*names: str) -> int:
    """An even draw from 0 up to below `DRAWS` that follows from the names and their order."""
    return int.from_bytes(blake2b("\0".join(names).encode(), digest_size=8).digest(), "big")
