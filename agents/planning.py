"""Plan an admitted request: which models may answer it, in which order, and what a call to each can cost at most."""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import orjson

from agents.structured import REPAIR_TOKENS
from config.known_models import Catalogue
from config.prices import Prices
from config.tasks import Prepared
from core.asked import asked
from core.bounds import LARGEST_CONTEXT, media_tokens, text_tokens
from core.fallback import at_candidate
from core.features import unsupported_by
from core.hedging import hedge_after_us, may_hedge, most_at_once
from core.limits import Amounts
from core.pricing import Price, Tiers, unbounded_by, upper_bound
from core.registry import Model, Registry, Tier, following
from core.routing import Choice, Conditions, NoChoice, Router
from core.standing import UNKNOWN, Standing
from core.trust import Caller, not_for
from schemas.events import Candidate, Decision, Error, LlmCall, LlmRequest, NearLimit, ReplyTo

DAY_US = 86_400_000_000
#: Hears of each request that is admitted: provider and model of the first candidate, the route's name, the complexity where it was scored.
Chosen = Callable[[str, str, str | None, float | None], None]
#: Whether the calls to a provider for a tenant are made with the tenant's own key.
OwnKey = Callable[[str, str], bool]


@dataclass(frozen=True, slots=True)
class Plan:
    """What was chosen for a request: `fields` of its call that a repetition has again, and how long the response cache may keep its answer.

    `made` is the encoded request with the messages that its task made, which may come out otherwise later, and the bound of its route;
    None where it is called as it came.
    `tokens` is the most that one call can use, `tiers` those of the candidates. From `degrade_from` percent of a limit on, only
    those are called that are `cheap`. `max_attempts` is the most calls that the request and its route allow. These are not kept.
    """

    fields: Mapping[str, Any]
    cache_seconds: int | None = None
    cache_shared: bool = False
    made: bytes | None = None
    tokens: int = 0
    tiers: tuple[Tier, ...] = ()
    degrade_from: int = 100
    cheap: tuple[bool, ...] = ()
    max_attempts: int | None = None

    @property
    def models(self) -> tuple[str, ...]:
        """The candidates as `provider/model`."""
        return tuple(f"{each['provider']}/{each['model']}" for each in self.fields["candidates"])

    @property
    def amounts(self) -> Amounts:
        """The most that one call can use, for the limits that the request has to fit into."""
        bounds = [candidate["reserved_nano_usd"] for candidate in self.fields["candidates"]]
        known = [bound for bound in bounds if bound is not None]
        return Amounts(max(known, default=0) if len(known) == len(bounds) else None, self.tokens)

    @property
    def dearer(self) -> tuple[int, ...]:
        """The places of the candidates to do without where a limit is nearly used up; none where all are alike."""
        return tuple(place for place, cheap in enumerate(self.cheap) if not cheap) if any(self.cheap) else ()

    @property
    def bound_nano(self) -> int:
        """The most that its calls can cost that are open at once, whichever candidates those are."""
        return most_at_once(self.fields["candidates"])

    def without(self, dropped: Mapping[int, str]) -> Plan:
        """The plan without the candidates at these places, for these reasons; it may have none left.

        One that lost its first candidate is downgraded: its answer is not kept for others, who may get the better one.
        """
        models, decisions = self.models, self.fields["decisions"]
        gone = {models[place]: f"dropped: {why}" for place, why in dropped.items()}
        fields = {
            **self.fields,
            "candidates": [one for place, one in enumerate(self.fields["candidates"]) if place not in dropped],
            "decisions": [
                *(each for each in decisions if each["model"] not in gone),
                *(Decision(model=model, kept=False, reason=reason) for model, reason in gone.items()),
            ],
        }
        tiers = tuple(tier for place, tier in enumerate(self.tiers) if place not in dropped)
        cheap = tuple(each for place, each in enumerate(self.cheap) if place not in dropped)
        if 0 not in dropped:
            return replace(self, fields=fields, tiers=tiers, cheap=cheap)
        fields["downgraded_from"] = self.fields["downgraded_from"] or models[0]
        return replace(self, fields=fields, tiers=tiers, cheap=cheap, cache_seconds=None)

    def packed(self) -> bytes:
        """The plan for the ledger; `unpacked` reads it."""
        made = None if self.made is None else base64.b64encode(self.made).decode("ascii")
        return orjson.dumps([self.fields, self.cache_seconds, self.cache_shared, made])

    @classmethod
    def unpacked(cls, packed: bytes) -> Plan:
        """The plan that `packed` gave."""
        fields, seconds, shared, made = orjson.loads(packed)
        # What an earlier version has kept says nothing of a spare ledger.
        fields = {"unchecked": False, **fields}
        return cls(fields, seconds, shared, None if made is None else base64.b64decode(made))


class Planner:
    """Chooses by the registry and the standings as they are now; the functions give their present state."""

    def __init__(
        self, registry: Callable[[], Registry], standings: Callable[[], Mapping[str, Standing]],
        patterns: Mapping[str, Sequence[str]], default_output: int, chosen: Chosen = lambda *_: None,
        default_price: Tiers | None = None, own_key: OwnKey = lambda *_: False,
    ) -> None:  # fmt: skip
        """`patterns` are models beyond the price list, by kind of provider; `default_output` bounds the output tokens of a request
        without a limit at a model without a default, and `default_price` is that of models without a price. `own_key` says of a provider
        and a tenant whether the calls are made with the tenant's own key; whether that one may be called is known where it is.
        """
        self._router = following(registry, lambda found: _router(found, patterns))
        self._prices = following(registry, partial(Prices, default=default_price))
        self._standings = standings
        self._default_output = default_output
        self._chosen = chosen
        self._own_key = own_key

    def plan(self, prepared: Prepared, now: int, caller: Caller | None = None) -> Plan | NoChoice:
        """The plan for a prepared request, or why no model can answer it that the caller's key is for."""
        request = prepared.request
        prices = self._prices()
        wanted = asked({**request, "task": prepared.task}, self._default_output, now)
        output = wanted.output_tokens

        def reread(model: Model) -> int:
            """The tokens of the answer, which a call to mend it reads too."""
            return output(model) + REPAIR_TOKENS if prepared.repair else 0

        def price(model: Model) -> Price | None:
            return prices.on(model.provider, model.name, now // DAY_US)

        def bound(model: Model) -> int | None:
            kind = prices.kind(model.provider)
            return upper_bound(
                request, kind, model.name, output(model), price(model), model.context_tokens, reread(model)
            )

        def refusal(model: Model) -> Error | None:
            of = request, model.provider, prices.kind(model.provider), model.name
            return (
                not_for(caller, model.full_name)
                or unsupported_by(*of)
                or unbounded_by(*of, price(model), model.context_tokens)
            )

        def own_key(provider: str) -> bool:
            return self._own_key(provider, request["tenant"])

        choice = self._router().choose(wanted, Conditions(bound, self._standings(), refusal, own_key))
        if isinstance(choice, NoChoice):
            return choice
        allowed = (request["max_attempts"], choice.route.max_attempts if choice.route else None)
        most_calls = min((each for each in allowed if each is not None), default=None)
        waits = self._waits(choice, {**request, "max_attempts": most_calls})
        most = max(
            _media(request, prices.kind(model.provider), model) + reread(model) + output(model)
            for model in (each.model for each in choice.candidates)
        )
        plan = replace(_plan(choice, prepared, output, waits, text_tokens(request) + most), max_attempts=most_calls)
        if choice.route is None or choice.route.degrade_from is None:
            return plan
        cheap = tuple(_named(each.model, choice.route.degrade_to) for each in choice.candidates)
        return replace(plan, degrade_from=choice.route.degrade_from, cheap=cheap)

    def admitted(self, plan: Plan) -> None:
        """Tell what was chosen for a request that is new and called by this plan."""
        first, fields = plan.fields["candidates"][0], plan.fields
        self._chosen(first["provider"], first["model"], fields["route"], fields["complexity"])

    def _waits(self, choice: Choice, request: LlmRequest) -> list[int | None]:
        """How long each candidate is waited for before another is called as well, in microseconds."""
        if choice.route is None or not choice.route.hedge or not may_hedge(request):
            return [None] * len(choice.candidates)
        known = (self._standings().get(one.model.full_name, UNKNOWN) for one in choice.candidates)
        return [hedge_after_us(standing, request["stream"]) for standing in known]


def _media(request: LlmRequest, kind: str, model: Model) -> int:
    """At most this many tokens are in the media of a request."""
    found = media_tokens(request, kind, model.name, model.context_tokens)
    return max(LARGEST_CONTEXT.values()) if found is None else found


def _named(model: Model, names: Collection[str]) -> bool:
    return model.full_name in names or any(alias in names for alias in model.aliases)


def _router(registry: Registry, patterns: Mapping[str, Sequence[str]]) -> Router:
    catalogue = Catalogue((one for one in registry.providers.values() if one.enabled), patterns)
    return Router(registry, catalogue.model, catalogue.nearest)


def _plan(
    choice: Choice, prepared: Prepared, output: Callable[[Model], int], waits: Sequence[int | None], tokens: int
) -> Plan:
    route = choice.route
    candidates = [
        Candidate(
            provider=each.model.provider, model=each.model.name, max_output_tokens=output(each.model),
            reserved_nano_usd=each.bound_nano_usd, hedge_after_us=wait,
        )
        for each, wait in zip(choice.candidates, waits, strict=True)
    ]  # fmt: skip
    fields: dict[str, Any] = {
        "route": route.name if route else None,
        "candidates": candidates,
        "decisions": list(choice.decisions),
        "fall_back_on": sorted(route.fall_back_on) if route else [],
        "complexity": choice.complexity,
        "prompt_version": prepared.prompt_version,
        "repair": prepared.repair,
        "downgraded_from": None,
        "unchecked": False,
    }
    tiers = tuple(each.model.tier for each in choice.candidates)
    kept = (route.cache_seconds, route.cache_shared) if route else (None, False)
    return Plan(fields, *kept, tokens=tokens, tiers=tiers)


def call_of(
    request: LlmRequest, plan: Plan, admitted_at: int, reply_to: ReplyTo | None, cache_key: bytes | None,
    near: Sequence[NearLimit] = (),
) -> LlmCall:  # fmt: skip
    """The call of a request to its first candidate, whose answer is kept under `cache_key`; `near` are limits nearly used up."""
    until = None if cache_key is None else admitted_at + (plan.cache_seconds or 0) * 1_000_000
    call = {
        "request": request, **plan.fields, "beside": None, "admitted_at": admitted_at, "cache_key": cache_key,
        "cache_until": until, "reply_to": reply_to, "near_limits": list(near),
    }  # fmt: skip
    return at_candidate(cast(LlmCall, call), 0)
