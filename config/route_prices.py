"""Whether what a route degrades to is cheaper, by the prices of the day."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from config.prices import Prices
from core.pricing import Price
from core.registry import Registry, Route
from core.registry_rules import reachable

DAY_US = 86_400_000_000


def not_cheaper(registry: Registry, now: int) -> Iterator[str]:
    """A sentence for each route that degrades to nothing cheaper than what it does without; models without a price may be."""
    degrading = [route for route in registry.routes if route.degrade_to]
    if not degrading:
        return
    usable, _ = reachable(registry)
    prices = Prices(registry)

    def costs(route: Route, kept: bool) -> list[Decimal | None]:
        """What a token in and a token out cost together, of each model that a route keeps, or goes without."""
        names = [target.model for target in route.targets if (target.model in route.degrade_to) is kept]
        return [_both(prices.on(m.provider, m.name, now // DAY_US)) for name in names for m in usable.get(name, ())]

    for route in degrading:
        found = costs(route, True), costs(route, False)
        left, without = ([each for each in some if each is not None] for some in found)
        if left and without and (left, without) == found and min(left) >= max(without):
            yield (
                f"Route {route.name} degrades to {', '.join(route.degrade_to)}, which costs no less than its other targets; "
                "name a cheaper one in degrade_to."
            )


def _both(price: Price | None) -> Decimal | None:
    if price is None:
        return None
    asked, answered = (price.usd_per_mtok(of, 0) for of in ("input_uncached", "output_text"))
    return None if asked is None or answered is None else asked + answered
