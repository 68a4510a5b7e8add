"""What a deployment has to choose from: providers, models, routes and tasks, as one immutable snapshot of the registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal, TypeVar

S = TypeVar("S")
T = TypeVar("T")

Tier = Literal["cheap", "balanced", "powerful"]
Capability = Literal["text", "image", "audio", "file", "tools", "structured_output", "streaming", "reasoning"]
Strategy = Literal["complexity", "health", "cost", "latency", "success_rate"]
StickyKey = Literal["request_id", "user", "tenant", "project"]

#: Tiers from the weakest to the strongest; a quality floor names the weakest that will do.
TIERS: tuple[Tier, ...] = ("cheap", "balanced", "powerful")


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider by its name here, which is also its lane's; `kind` names the API that it speaks."""

    name: str
    kind: str
    base_url: str | None = None
    region: str | None = None
    enabled: bool = True
    default: bool = False
    #: Calls at once; None takes the deployment's bound.
    concurrency: int | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """A model at a provider. Several models under one alias are deployments of one, chosen between by `weight`."""

    provider: str
    name: str
    aliases: tuple[str, ...] = ()
    capabilities: frozenset[Capability] = frozenset({"text"})
    context_tokens: int | None = None
    tier: Tier = "balanced"
    enabled: bool = True
    weight: int = 1
    #: USD per million tokens by token class, in place of the price list's.
    price_override: Mapping[str, Decimal] | None = None
    #: The most output tokens where a request sets no limit; None takes the deployment's.
    default_output_tokens: int | None = None

    @property
    def full_name(self) -> str:
        """The name that requests ask for, `provider/model`."""
        return f"{self.provider}/{self.name}"


@dataclass(frozen=True, slots=True)
class Target:
    """A model that a route may send to, as `provider/model` or an alias; `weight` counts where the order is `weighted`."""

    model: str
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Route:
    """A rule: which requests it is for, and which models may answer them, in which order.

    `plan`, `task` and `tenant` are shell patterns; `model` is one of the model that a request asks for, None for requests that
    ask for none. Of the routes that match, the one with the highest `precedence` holds, then the most specific (a tenant by name
    before a task before a plan), then the first by name. `share` is the percentage of keys it takes, by a hash of the
    `sticky` field; routes alike but for their names divide the keys, and what all of them leave falls to the next route. Times are
    microseconds since 1970.
    """

    name: str
    targets: tuple[Target, ...]
    plan: str = "*"
    task: str = "*"
    tenant: str = "*"
    model: str | None = None
    precedence: int = 0
    enabled: bool = True
    valid_from: int | None = None
    valid_until: int | None = None
    share: Decimal = Decimal(100)
    sticky: StickyKey = "user"
    order: Literal["priority", "weighted"] = "priority"
    #: Tie-breakers before `order`, the first the strongest.
    strategies: tuple[Strategy, ...] = ()
    quality_floor: Tier | None = None
    #: Error codes that move on to the next candidate beside those that always do, such as `provider_invalid_request`.
    fall_back_on: frozenset[str] = frozenset()
    max_attempts: int | None = None
    #: How long answers are kept in the response cache; None keeps none. Shared between tenants only where `cache_shared`.
    cache_seconds: int | None = None
    cache_shared: bool = False
    #: Whether a model of another provider is called as well when the first token is later than 95 % of them have been.
    hedge: bool = False
    #: From this percentage of any limit of a request's tenant, project, user or key on, only the targets of `degrade_to` are
    #: called; None for never.
    degrade_from: int | None = None
    degrade_to: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredTask:
    """A named task of the registry: in JSON text what its file would say beside its name, where the order of keys counts."""

    name: str
    definition: str


@dataclass(frozen=True, slots=True)
class Registry:
    """One consistent state of the registry; `version` counts its changes, `loaded_at` in microseconds since 1970."""

    providers: Mapping[str, Provider] = field(default_factory=dict)
    models: tuple[Model, ...] = ()
    routes: tuple[Route, ...] = ()
    tasks: tuple[StoredTask, ...] = ()
    version: int = 0
    loaded_at: int = 0


def following(source: Callable[[], S], make: Callable[[S], T]) -> Callable[[], T]:
    """What `make` makes of what `source` gives, such as the registry; made again only when that is another one."""
    made: tuple[S, T] | None = None

    def current() -> T:
        nonlocal made
        now = source()
        if made is None or made[0] is not now:
            made = now, make(now)
        return made[1]

    return current
