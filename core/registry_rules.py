"""What a registry must be to be used: every fault as a sentence that names the value and what it needs."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from urllib.parse import urlsplit

from core.errors import CODES
from core.pricing import TOKEN_CLASSES
from core.registry import Model, Provider, Registry, Route, Target

#: A provider's name is part of its lane's topic, and no slash may stand in it.
PROVIDER_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,47}")
ROUTE_NAME = re.compile(r"[A-Za-z0-9][\w.:-]{0,127}", re.ASCII)
MODEL_NAME = re.compile(r"[^\s\x00-\x1f]{1,256}")
LONGEST_PATTERN = 256
LONGEST_REGION = 64
SHARE_DECIMALS = 6
#: In USD per million tokens; what a call of the largest context costs at it is still a number that an event can hold.
DEAREST = 1_000_000
#: What an integer column holds.
LARGEST = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Findings:
    """What is wrong with a registry: with a problem it must not be used, with warnings it may."""

    problems: tuple[str, ...]
    warnings: tuple[str, ...]


def check(registry: Registry, kinds: Collection[str]) -> Findings:
    """Everything that is wrong; `kinds` are the provider APIs that can be spoken."""
    problems: list[str] = []
    for provider in registry.providers.values():
        problems += _of_provider(provider, kinds)
    defaults = [provider.name for provider in registry.providers.values() if provider.default]
    if len(defaults) > 1:
        problems.append(f"Providers {', '.join(defaults)} are all the default; only one may be.")
    problems += _of_models(registry)
    usable, unusable = reachable(registry)
    warnings: list[str] = []
    for route in registry.routes:
        problems += _of_route(route)
        lost = [f"{t.model} is {unusable.get(t.model, 'unknown')}" for t in route.targets if t.model not in usable]
        if not route.enabled or not lost:
            continue
        if len(lost) == len(route.targets):
            problems.append(f"Route {route.name} has no model left to send to: {_listed(lost)}; name an enabled one.")
        else:
            warnings.append(f"Route {route.name} goes past some of its targets: {_listed(lost)}.")
    warnings += _of_hedges(registry.routes, usable)
    warnings += _of_sticky(registry.routes)
    problems += _of_shares(registry.routes)
    return Findings(tuple(problems), tuple(warnings))


def reachable(registry: Registry) -> tuple[Mapping[str, Sequence[Model]], Mapping[str, str]]:
    """The enabled models by each name that a target may give, and why the others cannot be sent to."""
    usable: dict[str, list[Model]] = defaultdict(list)
    unusable: dict[str, str] = {}
    for model in registry.models:
        provider = registry.providers.get(model.provider)
        why = None
        if provider is None:
            why = f"at the unknown provider {model.provider}"
        elif not provider.enabled:
            why = f"at the disabled provider {model.provider}"
        elif not model.enabled:
            why = "disabled"
        for name in dict.fromkeys((model.full_name, *model.aliases)):
            if why is None:
                usable[name].append(model)
            else:
                unusable[name] = why
    return usable, unusable


def misnamed(registry: Registry, before: Mapping[str, Route]) -> Iterator[str]:
    """Targets that no model here has the name of, where an enabled route names them anew; `before` are the routes as they were.

    A reason to refuse the change, and none to use nothing of what stands: what a route names may be gone later.
    """
    known = dict.fromkeys(name for names in reachable(registry) for name in names)
    for route in registry.routes:
        former = before.get(route.name)
        had = {target.model for target in former.targets} if former is not None and former.enabled else ()
        for name in (target.model for target in route.targets if route.enabled):
            if name not in had and name not in known:
                nearest = get_close_matches(name, known)
                hint = (
                    f"the nearest known are {_listed(nearest)}"
                    if nearest
                    else "add the model first, or correct the name"
                )
                yield f"Route {route.name} names {name}, which is not known here; {hint}."


def _of_provider(provider: Provider, kinds: Collection[str]) -> Iterator[str]:
    name, kind = provider.name, provider.kind
    if not PROVIDER_NAME.fullmatch(name):
        yield f"Provider name {name!r} cannot be used; take up to 48 small letters, digits and hyphens."
    if kind not in kinds:
        yield f"Provider {name} is of the unknown kind {kind!r}; the kinds are {', '.join(kinds)}."
    elif name in kinds and name != kind:
        # The environment's key for this name would go to another provider's server.
        yield f"Provider {name} is of kind {kind}, but its name stands for the kind {name}; take another name."
    if provider.base_url is not None:
        yield from _of_address(name, provider.base_url)
    elif kind == "openai-compatible":
        yield f"Provider {name} of kind {kind} needs a base URL, such as http://127.0.0.1:8000/v1."
    if provider.region is not None and not (provider.region.isprintable() and len(provider.region) <= LONGEST_REGION):
        yield f"Provider {name} has a region that cannot be used; take up to {LONGEST_REGION} printable characters."
    yield from _of_counts(f"Provider {name}", provider, "concurrency")


def _of_address(name: str, url: str) -> Iterator[str]:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or len(url) > 2_048 or any(c.isspace() for c in url):
        yield f"Provider {name} has a base URL that is none; write http:// or https:// and a host."
    elif parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        # Not quoted: what stands there may be a secret.
        yield f"Provider {name} has a base URL with a user, a password or a query; keep keys out of it."


def _of_models(registry: Registry) -> Iterator[str]:
    names: dict[str, Model] = {}
    for model in registry.models:
        if model.full_name in names:
            yield f"Model {model.full_name} stands there twice; keep one."
        names[model.full_name] = model
    for full_name, model in names.items():
        if not MODEL_NAME.fullmatch(model.name):
            yield f"Model name {model.name!r} cannot be used; take 1 to 256 characters without spaces."
        if model.provider not in registry.providers:
            yield f"Model {full_name} is at the provider {model.provider}, which does not exist; add the provider first."
        yield from _of_counts(f"Model {full_name}", model, "context_tokens", "weight", "default_output_tokens")
        for alias in model.aliases:
            if not MODEL_NAME.fullmatch(alias):
                yield f"Alias {alias!r} of model {full_name} cannot be used; take 1 to 256 characters without spaces."
            # No alias leads to another alias, so none can lead in a circle.
            if alias in names:
                yield f"Alias {alias} of model {full_name} is the full name of a model; an alias may not lead in a circle."
        for name, price in (model.price_override or {}).items():
            if name not in TOKEN_CLASSES:
                yield f"Model {full_name} has a price for {name!r}; the classes are {', '.join(TOKEN_CLASSES)}."
            elif not 0 <= price <= DEAREST:
                yield f"Model {full_name} has the price {price} for {name}; it needs 0 to {DEAREST:,} USD per million tokens."


def _of_route(route: Route) -> Iterator[str]:
    name = route.name
    if not ROUTE_NAME.fullmatch(name):
        yield f"Route name {name!r} cannot be used; take up to 128 letters, digits and . _ : -"
    if not route.targets:
        yield f"Route {name} has no target; name at least one model."
    for target in route.targets:
        yield from _of_counts(f"Route {name} for {target.model}", target, "weight")
    for field in ("plan", "task", "tenant", "model"):
        pattern = getattr(route, field)
        if pattern is not None and not (1 <= len(pattern) <= LONGEST_PATTERN and pattern.isprintable()):
            yield f"Route {name} has a {field} that cannot be used; take 1 to {LONGEST_PATTERN} printable characters."
    if not 0 <= route.share <= 100:
        yield f"Route {name} has a share of {route.share} percent; it needs 0 to 100."
    elif route.share != round(route.share, SHARE_DECIMALS):
        yield f"Route {name} has a share of {route.share} percent; it takes up to {SHARE_DECIMALS} decimals."
    if route.valid_from is not None and route.valid_until is not None and route.valid_from >= route.valid_until:
        yield f"Route {name} is valid until a time that is not after its start; swap or correct the two."
    for code in sorted(route.fall_back_on - CODES.keys()):
        yield f"Route {name} falls back on the unknown error {code!r}; take a code such as provider_invalid_request."
    if abs(route.precedence) > LARGEST:
        yield f"Route {name} has precedence {route.precedence}; it needs {-LARGEST:,} to {LARGEST:,}."
    yield from _of_counts(f"Route {name}", route, "max_attempts", "cache_seconds")
    yield from _of_degrading(route)


def _of_degrading(route: Route) -> Iterator[str]:
    """A route that degrades does without some of its targets, and has others left."""
    name, share, targets = route.name, route.degrade_from, [target.model for target in route.targets]
    if share is not None and not 1 <= share <= 100:
        yield f"Route {name} degrades from {share} percent on; it needs 1 to 100."
    if share is None and route.degrade_to:
        yield f"Route {name} names {_listed(route.degrade_to)} to degrade to, but not from when on; set degrade_from to a percentage."
    if share is not None and not route.degrade_to:
        yield f"Route {name} degrades from {share} percent on and names no cheaper model; name one of its targets in degrade_to."
    for model in route.degrade_to:
        if model not in targets:
            yield f"Route {name} degrades to {model}, which is none of its targets; add it to them."
    if route.degrade_to and set(targets) <= set(route.degrade_to):
        yield f"Route {name} degrades to all of its targets; name only the cheaper ones in degrade_to."


def _of_hedges(routes: Iterable[Route], usable: Mapping[str, Sequence[Model]]) -> Iterator[str]:
    """A late call is hedged at another provider, so a route needs two."""
    for route in routes:
        providers = {model.provider for target in route.targets for model in usable.get(target.model, ())}
        if route.enabled and route.hedge and len(providers) == 1:
            yield f"Route {route.name} hedges, and all its models are at {providers.pop()}; name one of another provider."


def _of_counts(what: str, entry: Provider | Model | Route | Target, *fields: str) -> Iterator[str]:
    for field in fields:
        number = getattr(entry, field)
        if number is not None and not 1 <= number <= LARGEST:
            yield f"{what} has {field} {number}; it needs 1 to {LARGEST:,}."


def _of_shares(routes: Iterable[Route]) -> Iterator[str]:
    """Routes for the same requests at one precedence may take 100 percent together, at any time."""
    for there in _at_once(routes):
        total = sum(route.share for route in there)
        if total > 100:
            yield (
                f"Routes {_listed([r.name for r in there])} are for the same requests and take {total} percent "
                "together; bring their shares to at most 100 or give one a higher precedence."
            )


def _of_sticky(routes: Iterable[Route]) -> Iterator[str]:
    """Shares add up only where they go by the same field."""
    for there in _at_once(routes):
        if len(fields := sorted({route.sticky for route in there})) > 1:
            yield (
                f"Routes {_listed([r.name for r in there])} are for the same requests and their shares go by {_listed(fields)}, "
                "so that they do not add up; give them one `sticky` field."
            )


def _at_once(routes: Iterable[Route]) -> Iterator[list[Route]]:
    """The enabled routes for the same requests at one precedence, by name: those that are in force together, time after time."""
    alike: dict[tuple[object, ...], list[Route]] = defaultdict(list)
    for route in sorted(routes, key=lambda route: route.name):
        if route.enabled:
            alike[(route.plan, route.task, route.tenant, route.model, route.precedence)].append(route)
    for group in alike.values():
        for start in sorted({route.valid_from or 0 for route in group}):
            there = [
                r for r in group if (r.valid_from or 0) <= start and (r.valid_until is None or start < r.valid_until)
            ]
            if len(there) > 1:
                yield there


def _listed(parts: Sequence[str]) -> str:
    return ", ".join(parts)
