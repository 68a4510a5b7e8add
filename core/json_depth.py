"""How deeply the objects and lists of a JSON value stand within each other."""

from __future__ import annotations

from typing import Any

#: What may be in a request; https://github.com/ijl/orjson writes no more than 254 levels.
DEEPEST_OF_REQUESTS = 100


def deeper_than(levels: int, value: Any) -> bool:
    """Whether objects and lists stand within each other at more levels than these."""
    layer: list[Any] = [value]
    for _ in range(levels + 1):
        layer = [
            inner
            for outer in layer
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not layer:
            return False
    return True
