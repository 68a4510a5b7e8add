"""Which models may answer a request, in which order, and why: frozen facts in, candidates and reasons out.

1. The route: the first in rank that matches and whose share has the request's key (`core/matching.py`). A request for a model
   that no route matches takes that model, or the deployments of its alias; one without a provider is the default provider's.
2. The filters drop what cannot or may not serve: unknown, disabled, not capable, too small a context, below the route's quality
   floor, or dearer than the request allows (a model without a price cannot be shown to be cheap enough).
3. What is out of service is dropped as well: unhealthy, circuit breaker open, or resting after a rate limit. Where nothing else
   is left, the least bad of these is kept as the last resort: one that rests before one whose breaker is open before an
   unhealthy one, among equals the one that is back first.
4. The rest is put in order by the route's strategies and its own order (`core/ranking.py`).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from core.asked import Asked
from core.complexity import complexity
from core.errors import error
from core.matching import RouteIndex
from core.ranking import Option, deployments, place_of, reason_of, usd
from core.registry import TIERS, Model, Registry, Route, Target
from core.standing import UNKNOWN, Outage, Standing, outage, together
from schemas.events import Decision, Error

DAY_US = 86_400_000_000
#: Dropped models that an error's sentence names.
NAMED = 5


def _takes_all(_: Model) -> Error | None:
    return None


def _platforms(provider: str) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Conditions:
    """What is known beside the registry.

    `standings` are by provider and by `provider/model`; a model has the worse of both. `bound` is the most that one call of this request
    to a model can cost, in nano-USD, None without a price. `refusal` says what of the request a model's API cannot take. `own_key`
    says of a provider whether it is called with a key of the tenant's own, of which the standings say nothing.
    """

    bound: Callable[[Model], int | None]
    standings: Mapping[str, Standing] = field(default_factory=dict)
    refusal: Callable[[Model], Error | None] = _takes_all
    own_key: Callable[[str], bool] = _platforms

    def standing(self, model: Model) -> Standing:
        """How a model does, its provider considered; another's key that rests or fails says nothing of the tenant's own."""
        own, provider = self.standings.get(model.full_name, UNKNOWN), self.standings.get(model.provider, UNKNOWN)
        of_a_key = own.breaker_open_until or own.resting_until or provider.of_the_key
        if of_a_key and self.own_key(model.provider):
            own = replace(own, breaker_open_until=None, resting_until=None)
            provider = UNKNOWN if provider.of_the_key else provider
        return together(own, provider)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that may answer, with the bound of one call in nano-USD (None without a price)."""

    model: Model
    bound_nano_usd: int | None


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen: at least one candidate, the best first, and one decision for every model considered.

    `route` is None where the request named the model and no route matched. `complexity` is None where no strategy asked for it.
    """

    route: Route | None
    candidates: tuple[Candidate, ...]
    decisions: tuple[Decision, ...]
    complexity: float | None


@dataclass(frozen=True, slots=True)
class NoChoice:
    """Why nothing was chosen, as the error that the caller gets, and the models that were considered."""

    error: Error
    route: Route | None = None
    decisions: tuple[Decision, ...] = ()


def _nothing_more(provider: str, model: str, day: int) -> Model | None:
    return None


def _no_names(asked: str) -> list[str]:
    return []


class Router:
    """Chooses by one state of the registry; make one for each and keep it, since it indexes the routes.

    `known` describes the models beyond the registry that may be called on a day (from 1970-01-01), as those of the price list
    may, by provider and name. `nearest` gives names like one that is not known.
    """

    def __init__(
        self,
        registry: Registry,
        known: Callable[[str, str, int], Model | None] = _nothing_more,
        nearest: Callable[[str], list[str]] = _no_names,
    ) -> None:
        self._registry = registry
        self._known = known
        self._nearest = nearest
        self._index = RouteIndex(registry.routes)
        self._default = next((provider.name for provider in registry.providers.values() if provider.default), None)
        self._named: dict[str, tuple[Model, ...]] = {}
        for model in registry.models:
            for alias in dict.fromkeys(model.aliases):
                self._named[alias] = (*self._named.get(alias, ()), model)
        # A full name is never an alias of something else.
        self._named.update((model.full_name, (model,)) for model in registry.models)

    def choose(self, asked: Asked, conditions: Conditions) -> Choice | NoChoice:
        """The candidates for a request, or why there is none."""
        route = self._route(asked)
        if route is not None:
            targets: tuple[Target, ...] = route.targets
        elif asked.model is None:
            return NoChoice(_no_route(asked))
        elif not self._models(name := self._full_name(asked.model), asked.now):
            return NoChoice(self._unknown(asked.model))
        else:
            targets, asked = (Target(name),), replace(asked, model=name)
        options: list[Option] = []
        dropped: list[Decision] = []
        refusals: list[Error] = []
        for name, place, weight, model in self._considered(targets, asked):
            if model is None:
                dropped.append(_dropped(name, "it is not known here"))
            elif (why := self._obstacle(model, asked, route)) is not None:
                dropped.append(_dropped(name, why))
            elif (refusal := _lacking(model, asked) or conditions.refusal(model)) is not None:
                refusals.append(refusal)
                dropped.append(_dropped(name, refusal["message"].rstrip(".")))
            elif (dear := _too_dear(bound := conditions.bound(model), asked.max_cost_nano_usd)) is not None:
                dropped.append(_dropped(name, dear))
            else:
                options.append(Option(model, place, weight, conditions.standing(model), bound))
        if not options:
            # Where the request itself is what every model refuses, it is told so in the words of the first.
            failure = (
                refusals[0] if refusals and len(refusals) == len(dropped) else _no_candidate(asked, route, dropped)
            )
            return NoChoice(failure, route, tuple(dropped))
        return _ordered(options, dropped, asked, route)

    def _route(self, asked: Asked) -> Route | None:
        """The route that holds."""
        model = asked.model
        full_name = None if model is None else self._full_name(model)
        places = self._index.matching(asked.plan, asked.task, asked.tenant, model, asked.now, full_name)
        # Requests without the sticky field take a share one by one.
        return self._index.taking(places, lambda sticky: getattr(asked, sticky) or asked.request_id)

    def _considered(self, targets: Iterable[Target], asked: Asked) -> Iterator[tuple[str, int, int, Model | None]]:
        """Every model that the targets name, once; None for a name that stands for none."""
        seen: set[str] = set()
        for place, target in enumerate(targets):
            models = deployments(self._models(target.model, asked.now), asked.request_id)
            for name, model in ((m.full_name, m) for m in models) if models else ((target.model, None),):
                if name not in seen:
                    seen.add(name)
                    yield name, place, target.weight, model

    def _full_name(self, asked: str) -> str:
        """The name that a request asks for, at the default provider where it names none and is no alias."""
        if self._default is None or "/" in asked or asked in self._named:
            return asked
        return f"{self._default}/{asked}"

    def _models(self, name: str, now: int) -> tuple[Model, ...]:
        found = self._named.get(name)
        if found is None:
            provider, _, model = name.partition("/")
            known = self._known(provider, model, now // DAY_US)
            found = () if known is None else (known,)
        return found

    def _obstacle(self, model: Model, asked: Asked, route: Route | None) -> str | None:
        """Why a model cannot or may not serve a request, its cost and health aside; None where it can."""
        provider = self._registry.providers.get(model.provider)
        if provider is None and model.full_name in self._named:
            return f"provider {model.provider} is not in the registry"
        if provider is not None and not provider.enabled:
            return f"provider {model.provider} is disabled"
        if not model.enabled:
            return "the model is disabled"
        output = asked.output_tokens(model)
        if model.context_tokens is not None and asked.input_tokens + output > model.context_tokens:
            return (
                f"about {asked.input_tokens:,} tokens in and up to {output:,} out do not fit its context "
                f"of {model.context_tokens:,}"
            )
        floor = route.quality_floor if route else None
        if floor is not None and TIERS.index(model.tier) < TIERS.index(floor):
            return f"tier {model.tier} is below the floor {floor}"
        return None

    def _unknown(self, asked: str) -> Error:
        nearest = self._nearest(asked) or difflib.get_close_matches(asked, self._named, n=3, cutoff=0.5)
        hint = f"the nearest known are {', '.join(nearest)}" if nearest else "name one as provider/model"
        return error("caller_unknown_model", f"Model {asked!r} is not known here; {hint}.")


def _lacking(model: Model, asked: Asked) -> Error | None:
    """What the request needs and the model cannot do."""
    if asked.needs <= model.capabilities:
        return None
    what = ", ".join(sorted(asked.needs - model.capabilities))
    return error(
        "caller_unsupported_feature", f"Model {model.full_name} has no {what}; leave it out, or ask for another model."
    )


def _too_dear(bound: int | None, most: int | None) -> str | None:
    """Why a call may cost more than the request allows; None where it cannot."""
    if most is None or (bound is not None and bound <= most):
        return None
    cost = "it has no price" if bound is None else f"it may cost {usd(bound)}"
    return f"{cost}, and the request may cost {usd(most)} at most"


def _ordered(options: list[Option], dropped: list[Decision], asked: Asked, route: Route | None) -> Choice:
    """The choice among the models that can serve."""
    now = asked.now
    outages: list[tuple[Outage, Option]] = []
    serving: list[Option] = []
    for option in options:
        if (why := outage(option.standing, now)) is None:
            serving.append(option)
        else:
            outages.append((why, option))
    resort = None
    if not serving:
        resort, chosen = min(outages, key=lambda pair: pair[0])
        serving = [chosen]
        outages = [pair for pair in outages if pair[1] is not chosen]
    dropped += (_dropped(option.model.full_name, why.text(now)) for why, option in outages)
    score = None
    if route is not None and "complexity" in route.strategies:
        score = complexity(asked.characters, language=asked.language, task=asked.task, tools="tools" in asked.needs)
    if len(serving) > 1:
        serving.sort(key=lambda option: place_of(option, asked, route, score))
    kept = [
        Decision(model=option.model.full_name, kept=True, reason=reason_of(option, asked, route, score))
        for option in serving
    ]
    if resort is not None:
        kept[0]["reason"] = f"last resort: {resort.text(now)}; {kept[0]['reason']}"
    candidates = tuple(Candidate(option.model, option.bound) for option in serving)
    return Choice(route, candidates, (*kept, *dropped), score)


def _dropped(model: str, why: str) -> Decision:
    return Decision(model=model, kept=False, reason=f"dropped: {why}")


def _no_route(asked: Asked) -> Error:
    return error(
        "policy_no_route",
        f"The request names no model, and no route is for plan {asked.plan or 'none'}, task {asked.task or 'none'} and tenant "
        f"{asked.tenant}; name a model, or add a route.",
    )


def _no_candidate(asked: Asked, route: Route | None, dropped: list[Decision]) -> Error:
    by = f"route {route.name}" if route else f"model {asked.model}"
    reasons = ", ".join(f"{one['model']} ({one['reason'].removeprefix('dropped: ')})" for one in dropped[:NAMED])
    more = f" and {len(dropped) - NAMED} more" if len(dropped) > NAMED else ""
    return error(
        "policy_no_candidate",
        f"No model of {by} can serve the request: {reasons}{more}; change the request, or the route's targets."
        if dropped
        else f"No model of {by} can serve the request: it has no targets; give it one.",
    )
