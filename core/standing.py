"""How a provider or a model does at the moment, and whether that keeps it out of service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Health = Literal["healthy", "unknown", "suspect", "unhealthy"]
#: From the best to the worst.
HEALTHS: tuple[Health, ...] = get_args(Health)


@dataclass(frozen=True, slots=True)
class Standing:
    """How a provider or a model does at the moment; the defaults are those of one of which nothing is known."""

    health: Health = "unknown"
    breaker_open_until: int | None = None
    resting_until: int | None = None
    p50_ms: float | None = None
    #: Share of the last calls that went well, 0 to 1.
    success_rate: float | None = None
    #: What 95 % of the last streamed calls' first tokens, and of the other calls' answers, took at most.
    first_token_p95_ms: float | None = None
    answer_p95_ms: float | None = None
    #: Whether the health is that of the platform's key.
    of_the_key: bool = False


UNKNOWN = Standing()


def together(own: Standing, provider: Standing) -> Standing:
    """How a model does, its provider considered: the worse of both, and its own figures before its provider's."""
    if provider is UNKNOWN or own is UNKNOWN:
        return own if provider is UNKNOWN else provider
    return Standing(
        _worse(own.health, provider.health),
        _later(own.breaker_open_until, provider.breaker_open_until),
        _later(own.resting_until, provider.resting_until),
        provider.p50_ms if own.p50_ms is None else own.p50_ms,
        provider.success_rate if own.success_rate is None else own.success_rate,
        own.first_token_p95_ms,
        own.answer_p95_ms,
    )


RESTING, OPEN, UNHEALTHY = range(3)


@dataclass(frozen=True, order=True, slots=True)
class Outage:
    """Why a model is out of service (the greater `kind`, the worse) and until when, in microseconds since 1970, 0 if not known."""

    kind: int
    until: int = 0

    def text(self, now: int) -> str:
        """The outage in words, as the end of a sentence."""
        seconds = -(-(self.until - now) // 1_000_000)
        if self.kind == RESTING:
            return f"resting for {seconds:,} s after a rate limit"
        return "unhealthy" if self.kind == UNHEALTHY else f"its circuit breaker is open for {seconds:,} s"


def outage(standing: Standing, now: int) -> Outage | None:
    """The worst that keeps a model out of service, None when it is in service."""
    if standing.health == "unhealthy":
        return Outage(UNHEALTHY)
    if standing.breaker_open_until is not None and standing.breaker_open_until > now:
        return Outage(OPEN, standing.breaker_open_until)
    if standing.resting_until is not None and standing.resting_until > now:
        return Outage(RESTING, standing.resting_until)
    return None


def _worse(one: Health, other: Health) -> Health:
    """The worse of two; what is not known says nothing against the other."""
    if one == other or other == "unknown":
        return one
    return other if one == "unknown" else max(one, other, key=HEALTHS.index)


def _later(one: int | None, other: int | None) -> int | None:
    if one is None or other is None:
        return other if one is None else one
    return max(one, other)
