"""What happens next with a call that reached its lane: the decision the ledger takes before any provider is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from core.energy import Short
from core.ids import derived
from core.limits import Refusal
from schemas.events import AttemptReason, Error

#: The number of the first call of a request that the spare ledger admitted; one that the ledger knows too, since it was sent again
#: while that was away, so has calls that are told apart.
FIRST_UNCHECKED = 1_001
#: How the ids of calls begin that `millstream providers test` makes: no request stands behind them.
CHECK = "check-"


def attempt_id(request_id: str, number: int) -> str:
    """The id of a request's n-th provider call."""
    return derived(request_id, f"attempt:{number}")


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

    `candidate` is the place of the model whose turn it is, `here` the number of calls made to it, `attempts` to any. `open` and
    `last_lost` are of the calls whose turn it is or was, not of a hedge beside them. `first` is the number of the first call.
    """

    done: bool
    attempts: int
    open: OpenAttempt | None
    last_lost: bool
    candidate: int = 0
    here: int = 0
    first: int = 1

    @property
    def next(self) -> int:
        """The number of the next call."""
        return self.first + self.attempts


@dataclass(frozen=True, slots=True)
class HedgeState:
    """What the ledger knows of a hedge: whether it was begun, and whether the call that it is beside is still the last and open."""

    begun: bool
    open: OpenAttempt | None
    late_open: bool


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
class Left:
    """A hedge that is of no use any more: the request goes on without it, or is over; call nobody."""


@dataclass(frozen=True, slots=True)
class Expire:
    """The deadline has passed: answer so, call nobody."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """No further call may be made, and the last one was cut off: answer that its outcome is unknown."""


@dataclass(frozen=True, slots=True)
class OverLimit:
    """A further call does not fit into a limit, or its user has too little energy for it: answer so, call nobody."""

    why: Refusal | Short

    @property
    def error(self) -> Error:
        """What its caller is told."""
        return self.why.error


Step = Begin | Finished | Moved | Wait | Lost | Left | Expire | GiveUp | OverLimit
#: `recorded`: the end, and the answer or the move that it brings. `left`: the end alone, since another call goes on or has the
#: answer. `changed`: nothing, since other calls have begun or ended than the caller counted. `refused`: nothing, the end does not count.
Ending = Literal["recorded", "left", "changed", "refused"]


def next_step(
    state: CallState, *, candidate: int, now: int, deadline: int | None, max_attempts: int, retry_unknown: bool,
    repair: bool = False, most_attempts: int | None = None,
) -> Step:  # fmt: skip
    """The next step for a call to its `candidate`-th model.

    `max_attempts` bounds the calls to one candidate, `most_attempts` those to all of them. `retry_unknown` is the request's own
    policy for calls that a crash cut off, `repair` says that the call asks to mend an answer that did not follow its schema.
    A call that is open beside the answer that stands is ended first: it has to be accounted.
    """
    if state.done and state.open is None:
        return Finished()
    if not state.done and state.candidate > candidate:
        return Moved(state.candidate)
    if state.open is not None:
        return Wait() if state.open.owner_alive else Lost(state.open)
    spent = state.here >= max_attempts or (most_attempts is not None and state.attempts >= most_attempts)
    if state.last_lost and (not retry_unknown or spent):
        return GiveUp()
    if deadline is not None and now >= deadline:
        return Expire()
    if state.attempts == 0:
        return Begin(state.next, "first")
    return Begin(state.next, _reason(state, repair))


def hedge_step(
    state: CallState, hedge: HedgeState, *, candidate: int, now: int, deadline: int | None
) -> Step | None:  # fmt: skip
    """The next step for a hedge at its `candidate`-th model; None where the request's turn has come to it, as to any call."""
    if hedge.begun and state.candidate >= candidate:
        return None
    if hedge.open is not None:
        return Wait() if hedge.open.owner_alive else Lost(hedge.open)
    if hedge.begun and state.done:
        return Finished()
    in_time = deadline is None or now < deadline
    if hedge.begun or state.done or not hedge.late_open or state.candidate >= candidate or not in_time:
        return Left()
    return Begin(state.next, "hedge")


def ending(
    *, done: bool, completed: bool, others: tuple[int, int], counted: tuple[int, int] | None
) -> Ending:  # fmt: skip
    """How the end of an open call counts: the first call with an answer ends the request, a failure only when none is left.

    `others` and `counted` are the other calls of the request, ended and open: as they are, and as what follows was made of them.
    """
    if done or (others[1] and not completed):
        return "left"
    return "recorded" if counted in (None, others) else "changed"


def _reason(state: CallState, repair: bool) -> AttemptReason:
    if state.last_lost:
        return "redelivery"
    if state.here == 0:
        return "fallback"
    return "repair" if repair else "retry"
