"""What happens next with a call that reached its lane: the decision the ledger takes before any provider is asked."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from schemas.events import AttemptReason


def attempt_id(request_id: str, number: int) -> str:
    """The id of a request's n-th provider call: UUID version 5 in the namespace of the request id."""
    return str(uuid.uuid5(uuid.UUID(request_id), f"attempt:{number}"))


@dataclass(frozen=True, slots=True)
class OpenAttempt:
    """A provider call that was begun and whose end nobody recorded; times in microseconds since 1970."""

    attempt_id: str
    number: int
    reason: AttemptReason
    started_at: int
    owner_alive: bool


@dataclass(frozen=True, slots=True)
class CallState:
    """What the ledger knows of a request when its call reaches the lane."""

    done: bool
    attempts: int
    open: OpenAttempt | None
    last_lost: bool


@dataclass(frozen=True, slots=True)
class Begin:
    """Make provider call number `number`."""

    number: int
    reason: AttemptReason


@dataclass(frozen=True, slots=True)
class Finished:
    """The answer stands in the ledger: publish it again, call nobody."""


@dataclass(frozen=True, slots=True)
class Wait:
    """A living worker is at it: look again later."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The worker that made the open call is gone: record the call as cut off, then ask again."""

    open: OpenAttempt


@dataclass(frozen=True, slots=True)
class Expire:
    """The deadline has passed: answer so, call nobody."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """No further call may be made, and the last one was cut off: answer that its outcome is unknown."""


Step = Begin | Finished | Wait | Lost | Expire | GiveUp


def next_step(state: CallState, *, now: int, deadline: int | None, max_attempts: int, retry_unknown: bool) -> Step:
    """The next step for a call; `retry_unknown` is the request's own policy for calls that a crash cut off."""
    if state.done:
        return Finished()
    if state.open is not None:
        return Wait() if state.open.owner_alive else Lost(state.open)
    if state.last_lost and (not retry_unknown or state.attempts >= max_attempts):
        return GiveUp()
    if deadline is not None and now >= deadline:
        return Expire()
    if state.attempts == 0:
        return Begin(1, "first")
    return Begin(state.attempts + 1, "redelivery" if state.last_lost else "retry")
