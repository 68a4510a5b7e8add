"""Whether and when a failed provider call is made again."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.events import Error

#: How many times as long as its own longest wait a provider's `Retry-After` is kept to.
LONGEST_SAID = 10


@dataclass(frozen=True, slots=True)
class RetryRule:
    """How often a request's call may be made in all, and the bounds of the wait between two, in seconds."""

    max_attempts: int
    base: float
    longest: float


def next_wait(
    rule: RetryRule, error: Error, attempt: int, now_us: int, deadline_us: int | None, jitter: float
) -> float | None:
    """Seconds to wait before the next attempt, or None when there shall be none.

    The provider's own `Retry-After` is kept to; without one the wait is drawn evenly from 0 to `base * 2^(attempt-1)`,
    at most `longest` ("full jitter", https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
    `attempt` counts the calls made so far, `jitter` is a random number in [0, 1). A wait that reaches the deadline, or a
    `Retry-After` over `LONGEST_SAID` times `longest`, ends the tries.
    """
    if not error["retryable"] or attempt >= rule.max_attempts:
        return None
    if error["retry_after_ms"] is not None:
        wait = error["retry_after_ms"] / 1_000
        if wait > rule.longest * LONGEST_SAID:
            return None
    else:
        wait = jitter * min(rule.longest, rule.base * 2 ** (attempt - 1))
    if deadline_us is not None and now_us + int(wait * 1_000_000) >= deadline_us:
        return None
    return wait


def rest_left(rule: RetryRule, until_us: int, now_us: int, deadline_us: int | None) -> float:
    """Seconds to wait before a first call to a model that rests until then; 0 where it is called at once.

    It is where the rest is over, reaches the deadline, or is as long as ends the tries; and where there is no deadline, since
    nobody has said how long an answer may take.
    """
    wait = (until_us - now_us) / 1_000_000
    if deadline_us is None or until_us >= deadline_us or wait > rule.longest * LONGEST_SAID:
        return 0.0
    return max(0.0, wait)
