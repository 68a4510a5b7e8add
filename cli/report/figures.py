"""What a report says, as plain values: queries fill it, renderers read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cli.report.window import Window
from schemas.events import Tokens

DIMENSIONS = ("tenant", "user", "project", "task", "prompt_version", "route", "model", "provider", "day")
TOKEN_CLASSES = tuple(Tokens.__annotations__)
INPUT_CLASSES = ("input_uncached", "cache_read", "cache_write_5m", "cache_write_1h", "input_audio")


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of a group of calls; `spend` in nano-USD, times in microseconds, None where nobody knows.

    `spend` is the known cost, price adjustments included. `unpriced` calls have no price and `unknown` ones nobody knows
    the use of: they are in no sum; `unknown_most` bounds what the latter cost. `tokens` is None in a class that no call reported.
    `cache_hits` are answers of the response cache, which are no calls, and `cache_saved` what they had cost, as far as it is known.
    """

    name: str
    calls: int
    errors: int
    spend: int
    unpriced: int
    unknown: int
    unknown_most: int
    tokens: dict[str, int | None]
    p50: int | None
    p95: int | None
    p99: int | None
    first_token_p50: int | None
    first_token_p95: int | None
    cache_hits: int = 0
    cache_saved: int = 0

    @property
    def spend_per_call(self) -> int | None:
        """Nano-USD that a call of known cost came to on average, rounded; None without any."""
        known = self.calls - self.unpriced - self.unknown
        return round(self.spend / known) if known > 0 else None

    @property
    def error_share(self) -> float | None:
        """Failed calls of all calls."""
        return self.errors / self.calls if self.calls else None

    @property
    def cache_share(self) -> float | None:
        """Input tokens read from the provider's cache, of all input tokens; None without any."""
        total = self.tokens_in
        return (self.tokens["cache_read"] or 0) / total if total else None

    @property
    def tokens_in(self) -> int | None:
        """Input tokens of every class."""
        return _sum([self.tokens[name] for name in INPUT_CLASSES])

    @property
    def tokens_out(self) -> int | None:
        """Output tokens of every class."""
        return _sum([count for name, count in self.tokens.items() if name not in INPUT_CLASSES])


@dataclass(frozen=True, slots=True)
class Step:
    """One column of the plots over time; `p95` in microseconds, None without calls."""

    start: int
    spend: int
    calls: int
    errors: int
    p95: int | None


@dataclass(frozen=True, slots=True)
class Request:
    """A request that stands out; `cost` in nano-USD (None when unknown), `took` in microseconds."""

    request_id: str
    tenant: str
    task: str
    model: str
    outcome: str
    cost: int | None
    took: int | None
    created_at: int


@dataclass(frozen=True, slots=True)
class Report:
    """The whole report. `groups` are the dearest first (days in their order), `more` is how many were left out."""

    window: Window
    by: str
    tenant: str | None
    total: Figures
    groups: list[Figures]
    more: int
    steps: list[Step]
    trends: dict[str, list[int]]
    error_codes: list[tuple[str, int]]
    slowest: list[Request]
    costliest: list[Request]

    @property
    def empty(self) -> bool:
        """Whether there was nothing at all in the window."""
        return not self.total.calls and not self.total.spend and not self.slowest

    def values(self) -> dict[str, Any]:
        """Everything as JSON values; money in nano-USD, times in microseconds."""
        return {
            "since_us": self.window.since, "until_us": self.window.until, "step_seconds": self.window.step,
            "by": self.by, "tenant": self.tenant,
            "total": figures_values(self.total), "groups": [figures_values(group) for group in self.groups],
            "groups_left_out": self.more,
            "steps": [
                {"start_us": s.start, "spend_nano_usd": s.spend, "calls": s.calls, "errors": s.errors, "p95_us": s.p95}
                for s in self.steps
            ],
            "errors": [{"code": code, "calls": calls} for code, calls in self.error_codes],
            "slowest": [_request_values(request) for request in self.slowest],
            "costliest": [_request_values(request) for request in self.costliest],
        }  # fmt: skip


def figures_values(figures: Figures) -> dict[str, Any]:
    """One group's figures as flat JSON values, their units in their names."""
    return {
        "name": figures.name, "calls": figures.calls, "errors": figures.errors, "spend_nano_usd": figures.spend,
        "spend_per_call_nano_usd": figures.spend_per_call, "unpriced_calls": figures.unpriced, "unknown_cost_calls": figures.unknown,
        "unknown_cost_at_most_nano_usd": figures.unknown_most,
        **{f"tokens_{name}": count for name, count in figures.tokens.items()},
        "cache_share": figures.cache_share,
        "cache_hits": figures.cache_hits, "cache_saved_nano_usd": figures.cache_saved,
        "p50_us": figures.p50, "p95_us": figures.p95, "p99_us": figures.p99,
        "first_token_p50_us": figures.first_token_p50, "first_token_p95_us": figures.first_token_p95,
    }  # fmt: skip


def _request_values(request: Request) -> dict[str, Any]:
    return {
        "request_id": request.request_id, "tenant": request.tenant, "task": request.task, "model": request.model,
        "outcome": request.outcome, "cost_nano_usd": request.cost, "took_us": request.took, "created_at_us": request.created_at,
    }  # fmt: skip


def _sum(counts: list[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
