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
    """What the ledger knows of a request when its call reaches the lane.

    `candidate` is the place of the model whose turn it is, `here` the number of calls made to it, `attempts` to any.
    """

    done: bool
    attempts: int
    open: OpenAttempt | None
    last_lost: bool
    candidate: int = 0
    here: int = 0


@dataclass(frozen=True, slots=True)
class Begin:
    """Make provider call number `number`."""

    number: int
    reason: AttemptReason


@dataclass(frozen=True, slots=True)
class Finished:
    """The answer stands in the ledger: publish it again, call nobody."""


@dataclass(frozen=True, slots=True)
class Moved:
    """The request has gone on to another candidate: hand the call over to that one's lane."""

    candidate: int


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


Step = Begin | Finished | Moved | Wait | Lost | Expire | GiveUp


def next_step(
    state: CallState, *, candidate: int, now: int, deadline: int | None, max_attempts: int, retry_unknown: bool,
    repair: bool = False, most_attempts: int | None = None,
) -> Step:  # fmt: skip
    """The next step for a call to its `candidate`-th model.

    `max_attempts` bounds the calls to one candidate, `most_attempts` those to all of them. `retry_unknown` is the request's own
    policy for calls that a crash cut off, `repair` says that the call asks to mend an answer that did not follow its schema.
    """
    if state.done:
        return Finished()
    if state.candidate > candidate:
        return Moved(state.candidate)
    if state.open is not None:
        return Wait() if state.open.owner_alive else Lost(state.open)
    spent = state.here >= max_attempts or (most_attempts is not None and state.attempts >= most_attempts)
    if state.last_lost and (not retry_unknown or spent):
        return GiveUp()
    if deadline is not None and now >= deadline:
        return Expire()
    if state.attempts == 0:
        return Begin(1, "first")
    return Begin(state.attempts + 1, _reason(state, repair))


def _reason(state: CallState, repair: bool) -> AttemptReason:
    if state.last_lost:
        return "redelivery"
    if state.here == 0:
        return "fallback"
    return "repair" if repair else "retry"
