"""The order of the models that can serve a request: strategies as tie-breakers, then the route's own order.

Each strategy sees models in steps, so that near ones tie and the next decides:

| strategy | first come |
|---|---|
| complexity | the tier that fits the score, then the nearest; the stronger of two equally near |
| health | healthy, then not checked yet, then suspect |
| cost | the lowest bound of a call, in steps of a quarter; without a price last |
| latency | for `interactive` the lowest median, in steps of a half, not known last; for `batch` as cost |
| success_rate | the highest share of good calls, in steps of 5 points; not known counts as all good |

What still ties comes as the route lists it (`priority`), or drawn by weight from the request id (`weighted`). The deployments of
an alias stand together and are drawn by their own weight. A weight of 0 comes last.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from core.asked import Asked
from core.complexity import misfit, tier_for
from core.draw import DRAWS, draw
from core.registry import Model, Route, Strategy
from core.standing import HEALTHS, Standing

COST_STEP = math.log(1.25)
LATENCY_STEP = math.log(1.5)
SUCCESS_STEPS = 20
NANO = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Option:
    """A model that can serve, with what the strategies look at."""

    model: Model
    #: Place and weight of the target that named it.
    place: int
    weight: int
    standing: Standing
    bound: int | None


def place_of(option: Option, asked: Asked, route: Route | None, score: float | None) -> tuple[float, ...]:
    """What candidates are sorted by; equal ones, the deployments of one target, stay as they were drawn."""
    place: list[float] = [_step(option, name, asked, score) for name in (route.strategies if route else ())]
    if route is not None and route.order == "weighted":
        place.append(_drawn(asked.request_id, f"target {option.place}", option.weight))
    place.append(option.place)
    return tuple(place)


def deployments(models: tuple[Model, ...], request_id: str) -> tuple[Model, ...]:
    """The deployments of one alias in the order drawn for a request."""
    if len(models) < 2:
        return models
    return tuple(sorted(models, key=lambda model: _drawn(request_id, model.full_name, model.weight)))


def _step(option: Option, strategy: Strategy, asked: Asked, score: float | None) -> float:
    """The step of a model under a strategy, the lower the better."""
    standing = option.standing
    match strategy:
        case "complexity":
            return misfit(tier_for(score or 0.0), option.model.tier)
        case "health":
            return HEALTHS.index(standing.health)
        case "latency" if asked.priority == "interactive":
            return _log_step(standing.p50_ms, LATENCY_STEP)
        case "cost" | "latency":
            return _log_step(option.bound, COST_STEP)
        case "success_rate":
            bad = 0.0 if standing.success_rate is None else 1 - standing.success_rate
            return math.floor(round(bad * SUCCESS_STEPS, 9))


def _log_step(value: float | None, step: float) -> float:
    if value is None:
        return math.inf
    return math.floor(math.log(value) / step) if value > 0 else -math.inf


def _drawn(request_id: str, name: str, weight: int) -> float:
    """A draw whose lowest is each name as often as its weight says (https://doi.org/10.1016/j.ipl.2005.11.003)."""
    return math.inf if weight <= 0 else -math.log((draw(request_id, name) + 1) / DRAWS) / weight


def reason_of(option: Option, asked: Asked, route: Route | None, score: float | None) -> str:
    """What put a candidate where it is: the figure behind each strategy, then the order of the targets."""
    said = [_figure(option, name, asked, score) for name in (route.strategies if route else ())]
    if route is None:
        said.append("asked for" if option.model.full_name == asked.model else f"a deployment of {asked.model}")
    elif route.order == "weighted":
        said.append(f"target {option.place + 1} with weight {option.weight}")
    else:
        said.append(f"target {option.place + 1}")
    return "; ".join(said)


def _figure(option: Option, strategy: Strategy, asked: Asked, score: float | None) -> str:
    standing = option.standing
    match strategy:
        case "complexity":
            wanted, tier = tier_for(score or 0.0), option.model.tier
            fits = "fits" if wanted == tier else f"stands in for {wanted} at"
            return f"tier {tier} {fits} complexity {score or 0.0:.2f}"
        case "health":
            return "health not checked yet" if standing.health == "unknown" else standing.health
        case "latency" if asked.priority == "interactive":
            return "latency not known" if standing.p50_ms is None else f"median {standing.p50_ms:,.0f} ms"
        case "cost" | "latency":
            return "no price" if option.bound is None else f"at most {usd(option.bound)}"
        case "success_rate":
            return "no calls yet" if standing.success_rate is None else f"{standing.success_rate:.0%} good calls"


def usd(nano: int) -> str:
    """An amount of nano-USD, to be read."""
    return f"{nano / NANO:.6f} USD"
