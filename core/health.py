"""Whether a provider is healthy, from a check every few minutes and from how its calls ended meanwhile.

unknown ──good──▶ healthy ──failed──▶ suspect ──`failed` in a row──▶ unhealthy ──`good` in a row──▶ healthy
                     ▲──────good────────┘                             ▲──failed──┘

An unhealthy provider gets no calls but as the last resort, so its checks alone bring it back.
"""

from __future__ import annotations

from dataclasses import dataclass

from core.standing import Health

#: What is wrong with a key, and says nothing of the provider while another one serves.
OF_THE_KEY = ("auth", "limited", "key")


@dataclass(frozen=True, slots=True)
class HealthRule:
    """How many checks in a row make a provider unhealthy and healthy again; times in microseconds.

    Calls count as a failed check where at least `least_calls` ended in the last minutes, this share of them or more was bad, and
    one was since the last check.
    A provider is checked every `every_us`, one that is suspect or unhealthy five times as often.
    """

    failed: int = 3
    good: int = 3
    least_calls: int = 10
    bad_ratio: float = 0.5
    every_us: int = 300_000_000

    @property
    def again_us(self) -> int:
        """Microseconds between two checks of a provider that is not well."""
        return self.every_us // 5


@dataclass(frozen=True, slots=True)
class Check:
    """What one check found: nothing wrong, or what, as a short word (`result`) and a sentence."""

    at: int
    result: str = "good"
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Calls:
    """How the calls to a provider ended in the last minutes, and when the latest bad one did (0 for none)."""

    good: int = 0
    bad: int = 0
    bad_at: int = 0


@dataclass(frozen=True, slots=True)
class ProviderHealth:
    """The health of a provider; times in microseconds since 1970, 0 for never.

    `of_the_key` says that what was wrong last is the fault of the platform's key, and nothing that a tenant's own meets.
    """

    state: Health = "unknown"
    good_in_a_row: int = 0
    failed_in_a_row: int = 0
    changed_at: int = 0
    checked_at: int = 0
    last_error: str | None = None
    of_the_key: bool = False


NOT_CHECKED = ProviderHealth()


def due(health: ProviderHealth, rule: HealthRule, now: int) -> bool:
    """Whether it is time for the next check."""
    calm = health.state in ("healthy", "unknown")
    return now >= health.checked_at + (rule.every_us if calm else rule.again_us)


def with_calls(health: ProviderHealth, check: Check, calls: Calls, rule: HealthRule) -> Check:
    """The check with the calls counted in: a provider whose list of models answers and whose calls fail is not well.

    Bad calls that ended before the last check do not count again, so a provider that gets no calls is judged by its checks alone.
    """
    ended = calls.good + calls.bad
    few = ended < rule.least_calls or calls.bad < ended * rule.bad_ratio
    if check.result != "good" or few or calls.bad_at <= health.checked_at:
        return check
    return Check(check.at, "calls", f"Of the last {ended:,} calls {calls.bad:,} failed.")


def after(health: ProviderHealth, check: Check, rule: HealthRule) -> ProviderHealth:
    """The health after a check."""
    good = check.result == "good"
    good_in_a_row = health.good_in_a_row + 1 if good else 0
    failed_in_a_row = 0 if good else health.failed_in_a_row + 1
    state: Health
    if health.state == "unhealthy":
        state = "healthy" if good_in_a_row >= rule.good else "unhealthy"
    elif good:
        state = "healthy"
    else:
        state = "unhealthy" if failed_in_a_row >= rule.failed else "suspect"
    changed_at = health.changed_at if state == health.state else check.at
    error, of_the_key = check.error, check.result in OF_THE_KEY
    if good and state == "unhealthy":
        error, of_the_key = health.last_error, health.of_the_key
    return ProviderHealth(state, good_in_a_row, failed_in_a_row, changed_at, check.at, error, of_the_key)
