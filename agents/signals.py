"""How the calls of this process go: what may be called, what rests, and what the other workers are told of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median

from agents.outgoing import Clock
from core.alerts import breaker_closed, breaker_open
from core.breaker import CLOSED, Breaker, BreakerRule, State, begin, end, open_until, state_of, trial_until, verdict
from core.signals import Signal, p95
from schemas.events import LlmAlert, LlmUsage

#: Callers may name any model of a compatible server; beyond this many the one called longest ago is forgotten.
MOST = 1_000
#: Calls that the median and the share of good calls are taken of, and for how long they count.
LATEST = 100
FRESH_US = 300_000_000
#: How long a deployment rests after a 429 that does not say.
REST_US = 5_000_000


@dataclass(slots=True)
class _Deployment:
    """A model with one credential: its breaker, its rest, its latest calls as (end, good, microseconds), and how long was
    waited lately for first tokens of streamed calls and for other answers, as (end, microseconds).
    """

    breaker: Breaker = CLOSED
    resting_until: int = 0
    #: As far as a 429 said how long.
    told_until: int = 0
    latest: deque[tuple[int, bool, int | None]] = field(default_factory=lambda: deque(maxlen=LATEST))
    first_tokens: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=LATEST))
    answers: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=LATEST))


class Signals:
    """The breakers and the latest calls of one worker process, all its lanes together; `owner` is its id in the ledger."""

    def __init__(self, owner: str, clock: Clock, rule: BreakerRule | None = None) -> None:
        self._owner = owner
        self._clock = clock
        self._rule = rule or BreakerRule()
        self._deployments: dict[tuple[str, str, str], _Deployment] = {}
        self._tenants_own: set[tuple[str, str, str]] = set()

    def may_begin(self, provider: str, model: str, credential_id: str | None = None) -> bool:
        """Whether a call may be made now; asked right before it, since the one trial of a half-open breaker is then taken."""
        found = self._deployments.get((provider, model, credential_id or ""))
        if found is None:
            return True
        now = self._clock()
        if found.resting_until > now:
            return False
        begun = begin(found.breaker, self._rule, now)
        if begun is not None:
            found.breaker = begun
        return begun is not None

    def out_until(self, provider: str, model: str, credential_id: str | None = None) -> int | None:
        """Until when no call may be made, in microseconds since 1970; None where one may."""
        found = self._deployments.get((provider, model, credential_id or ""))
        if found is None:
            return None
        opened, tried = open_until(found.breaker, self._rule), trial_until(found.breaker, self._rule)
        until = max(found.resting_until, opened or 0, tried or 0)
        return until if until > self._clock() else None

    def told_until(self, provider: str, model: str, credential_id: str | None = None) -> int:
        """Until when its latest 429s told to wait, in microseconds since 1970; 0 where none did."""
        found = self._deployments.get((provider, model, credential_id or ""))
        return 0 if found is None else found.told_until

    def ended(
        self, fact: LlmUsage, retry_after_ms: int | None = None, cut_short: bool = False, streamed: bool = False
    ) -> LlmAlert | None:  # fmt: skip
        """Take in the end of a call; the alert to publish when that opened its breaker, or closed it again.

        `retry_after_ms` is what a 429 said, `cut_short` that the request's own deadline ended the call, `streamed` that its answer
        came in pieces.
        """
        code, at = fact["error_code"], fact["finished_at"]
        said = verdict(code, cut_short)
        found = self._deployment(fact)
        if code == "provider_rate_limited":
            rest = REST_US if retry_after_ms is None else retry_after_ms * 1_000
            found.resting_until = max(found.resting_until, at + rest)
            if retry_after_ms is not None:
                found.told_until = max(found.told_until, at + rest)
        if said != "neither":
            found.latest.append((at, said == "good", fact["provider_us"] if code is None else None))
        if code in (None, "pipeline_superseded") and fact["provider_us"] is not None:
            # One that was broken off since it was late counts with the time it had, or hedging would take all slow calls
            # out of the p95 that it goes by, and hedge ever earlier.
            waited = fact["first_token_us"] if streamed else None
            times = found.first_tokens if streamed else found.answers
            times.append((at, fact["provider_us"] if waited is None else waited))
        before = found.breaker
        found.breaker = end(before, self._rule, said, fact["started_at"], at)
        until = open_until(found.breaker, self._rule)
        # A trial that failed opens it again: still the same trouble.
        if (until is None) == (before.opened_at is None):
            return None
        if until is None or code is None:
            return breaker_closed(fact["provider"], fact["model"], at)
        return breaker_open(fact["provider"], fact["model"], code, until, at)

    def states(self) -> Mapping[tuple[str, str], State]:
        """The worst state of a model's breakers, by provider and model."""
        order: tuple[State, ...] = ("closed", "half_open", "open")
        now, worst = self._clock(), dict[tuple[str, str], State]()
        for (provider, model, _), found in self._deployments.items():
            state = state_of(found.breaker, self._rule, now)
            worst[provider, model] = max(worst.get((provider, model), "closed"), state, key=order.index)
        return worst

    def told(self) -> list[Signal]:
        """What the other workers shall know of deployments that were called lately or are out.

        Nothing of calls with tenants' own keys, whose troubles may be the tenants' own.
        """
        now = self._clock()
        signals = (
            self._signal(key, one, now) for key, one in self._deployments.items() if key not in self._tenants_own
        )
        return [
            signal
            for signal in signals
            if signal.good or signal.bad or max(signal.open_until or 0, signal.resting_until or 0) > now
        ]

    def _signal(self, key: tuple[str, str, str], found: _Deployment, now: int) -> Signal:
        fresh = [call for call in found.latest if call[0] > now - FRESH_US]
        good = sum(well for _, well, _ in fresh)
        times = [took for _, _, took in fresh if took is not None]
        until = open_until(found.breaker, self._rule)
        waits = ([time for end, time in of if end > now - FRESH_US] for of in (found.first_tokens, found.answers))
        return Signal(
            *key, self._owner, good, len(fresh) - good, int(median(times)) if times else None, until,
            found.resting_until or None, now, max((at for at, well, _ in fresh if not well), default=None),
            *map(p95, waits),
        )  # fmt: skip

    def _deployment(self, fact: LlmUsage) -> _Deployment:
        """The deployment of a call, now the latest one called."""
        key = fact["provider"], fact["model"], fact["credential_id"] or ""
        found = self._deployments.pop(key, None) or _Deployment()
        if len(self._deployments) >= MOST:
            oldest = next(iter(self._deployments))
            del self._deployments[oldest]
            self._tenants_own.discard(oldest)
        self._deployments[key] = found
        if fact["credential_owner"] == "tenant":
            self._tenants_own.add(key)
        return found
