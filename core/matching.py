"""Which of many routes holds for a request, found without looking at each.

Every route has a bit, the first in rank the lowest. For each field a value stands for the bits of the routes that it matches, so
the routes for a request are an AND of four numbers. Only dates and shares are looked at route by route, in rank.

Routes alike, for the same requests at one precedence, divide one draw of a key between them: in rank, each takes its share of
what stands above the shares of those before it. So shares of 100 percent together leave nobody out, and one that grows into what
nobody had, or what the other of two had, keeps the keys that it has.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from fnmatch import translate

from core.draw import DRAWS, draw
from core.registry import Route, StickyKey

#: Values whose routes are remembered, by field; callers choose tenants and tasks, so there is no end to them.
MOST_REMEMBERED = 10_000
PATTERN = re.compile(r"[*?[]")
#: All keys, in the smallest unit of a share: a millionth of a percent.
WHOLE = 100_000_000


class RouteIndex:
    """The enabled routes of a registry in their rank: `precedence`, then the most specific, then the first by name."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = sorted((route for route in routes if route.enabled), key=_rank)
        self._plans = _Field([route.plan for route in self.routes])
        self._tasks = _Field([route.task for route in self.routes])
        self._tenants = _Field([route.tenant for route in self.routes])
        self._models = _Field([route.model for route in self.routes])
        self._shares = [int(route.share * WHOLE / 100) for route in self.routes]
        self._alike = [_alike(route) for route in self.routes]

    def matching(
        self, plan: str | None, task: str | None, tenant: str, model: str | None, now: int, full_name: str | None = None
    ) -> Iterator[int]:  # fmt: skip
        """Places in `routes` of those that match and are in force at `now`, in rank; shares are not looked at.

        What a request leaves out matches `*` alone; a request for a model matches only routes that name one, by its name as it was
        given or by its full one.
        """
        bits = self._plans.bits(plan or "") & self._tasks.bits(task or "") & self._tenants.bits(tenant)
        bits &= (
            self._models.bits(model) if full_name is None else self._models.bits(model) | self._models.bits(full_name)
        )
        while bits:
            place = (bits & -bits).bit_length() - 1
            bits &= bits - 1
            route = self.routes[place]
            begun = route.valid_from is None or now >= route.valid_from
            if begun and (route.valid_until is None or now < route.valid_until):
                yield place

    def taking(self, places: Iterable[int], key: Callable[[StickyKey], str]) -> Route | None:
        """The route among these that match whose share has the request; `key` gives its key by the sticky field."""
        left: dict[tuple[str, ...], int] = {}
        for place in places:
            route, share, alike = self.routes[place], self._shares[place], self._alike[place]
            if share >= WHOLE:
                return route
            drawn = left[alike] if alike in left else draw(*alike, key(route.sticky)) * WHOLE // DRAWS
            if drawn < share:
                return route
            left[alike] = drawn - share
        return None


class _Field:
    """One field of all routes: from a value to the routes whose pattern it matches, as bits."""

    def __init__(self, patterns: list[str | None]) -> None:
        self._literal: dict[str | None, int] = {}
        self._globs: list[tuple[str, re.Pattern[str], int]] = []
        self._any = 0
        for place, pattern in enumerate(patterns):
            if pattern == "*":
                self._any |= 1 << place
            elif pattern is not None and (sign := PATTERN.search(pattern)):
                self._globs.append((pattern[: sign.start()], re.compile(translate(pattern)), 1 << place))
            else:
                self._literal[pattern] = self._literal.get(pattern, 0) | 1 << place
        self._remembered: dict[str, int] = {}

    def bits(self, value: str | None) -> int:
        """The routes that a value matches; None matches only those whose pattern is None."""
        if value is None:
            return self._literal.get(None, 0)
        found = self._remembered.get(value)
        if found is None:
            found = self._any | self._literal.get(value, 0)
            for prefix, glob, bit in self._globs:
                if value.startswith(prefix) and glob.match(value):
                    found |= bit
            if len(self._remembered) >= MOST_REMEMBERED:
                self._remembered.clear()
            self._remembered[value] = found
        return found


def _rank(route: Route) -> tuple[int, tuple[int, ...], str]:
    fields = (route.tenant, route.task, route.plan, route.model)
    return -route.precedence, tuple(-_specific(field) for field in fields), route.name


def _alike(route: Route) -> tuple[str, ...]:
    """What is equal of routes that divide the same requests by one draw."""
    return route.plan, route.task, route.tenant, route.model or "", str(route.precedence), route.sticky


def _specific(pattern: str | None) -> int:
    """2 for a name, 1 for a pattern, 0 for anything."""
    if pattern is None or pattern == "*":
        return 0
    return 1 if PATTERN.search(pattern) else 2
