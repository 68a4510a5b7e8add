"""Which offset of a partition may be committed: the end of the longest run of finished records, and never past one in flight.

Faust 0.15.3 commits past records that are still being worked on when later ones finish first
(https://github.com/faust-streaming/faust/issues/606); this tracker takes the place of `Consumer._new_offset`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from time import monotonic


@dataclass(slots=True)
class _Partition:
    delivered: deque[tuple[int, float]] = field(default_factory=deque)
    unfinished: set[int] = field(default_factory=set)
    last: int = -1
    committable: int | None = None


class OffsetTracker:
    """Follows the records of any number of partitions from delivery to their end; `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._partitions: dict[Hashable, _Partition] = {}

    def deliver(self, partition: Hashable, offset: int) -> None:
        """A record was handed to the stage; offsets may have gaps, and a record handed over again changes nothing."""
        state = self._partitions.setdefault(partition, _Partition())
        if offset > state.last:
            state.delivered.append((offset, self._clock()))
            state.unfinished.add(offset)
            state.last = offset

    def finish(self, partition: Hashable, offset: int) -> None:
        """All that the record caused is confirmed; a record of an assignment that is over is ignored."""
        state = self._partitions.get(partition)
        if state is None or offset not in state.unfinished:
            return
        state.unfinished.discard(offset)
        delivered, unfinished = state.delivered, state.unfinished
        while delivered and delivered[0][0] not in unfinished:
            state.committable = delivered.popleft()[0] + 1

    def committable(self, partition: Hashable) -> int | None:
        """The offset to commit, that of the next record to read after a crash; None when nothing has finished."""
        state = self._partitions.get(partition)
        return state.committable if state else None

    def forget(self, partitions: Iterable[Hashable]) -> None:
        """The partitions were revoked or assigned anew: whatever is unfinished will be delivered again."""
        for partition in partitions:
            self._partitions.pop(partition, None)

    def partitions(self) -> list[Hashable]:
        """The partitions that records were delivered from."""
        return list(self._partitions)

    @property
    def in_flight(self) -> int:
        """Records delivered and not finished."""
        return sum(len(state.unfinished) for state in self._partitions.values())

    @property
    def oldest_age(self) -> float:
        """Seconds since the oldest unfinished record was delivered; 0 when there is none."""
        starts = [state.delivered[0][1] for state in self._partitions.values() if state.delivered]
        return self._clock() - min(starts) if starts else 0.0
