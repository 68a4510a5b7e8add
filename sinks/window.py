"""Which events stood in a partition a short while before: the rule that drops a republished event."""

from __future__ import annotations

from collections.abc import Iterable

#: How many offsets back an event with the same id makes a later one a repetition. Part of what a fact is: a change of it
#: changes which rows a re-read batch has.
REPUBLISHED_WITHIN = 100_000


class Window:
    """The ids of a partition's events over the last `within` offsets; about 150 bytes an event.

    What it answers depends on the log alone: it must have been told every offset from `within` before the first question
    on, in order. `next_offset` is the first offset that it has not been told.
    """

    def __init__(self, next_offset: int, within: int = REPUBLISHED_WITHIN) -> None:
        self.next_offset = next_offset
        self.within = within
        self._last: dict[bytes, int] = {}  # in the order of the offsets, since an id seen again moves to the end

    def note(self, event_id: bytes | None, offset: int) -> None:
        """An event (None: a record without an id) stands at `offset`."""
        self.next_offset = offset + 1
        if event_id is not None:
            self._last.pop(event_id, None)
            self._last[event_id] = offset

    def forget_old(self) -> None:
        """Give back the memory of the events that no later record can repeat."""
        oldest = self.next_offset - self.within
        gone = []
        for event_id, offset in self._last.items():
            if offset >= oldest:
                break
            gone.append(event_id)
        for event_id in gone:
            del self._last[event_id]

    def repetitions(self, events: Iterable[tuple[bytes | None, int]]) -> set[int]:
        """The offsets of those `events` that repeat an earlier event, of the window or among themselves."""
        within, last, here, found = self.within, self._last, dict[bytes, int](), set[int]()
        for event_id, offset in events:
            if event_id is None:
                continue
            before = here.get(event_id)
            if before is None:
                before = last.get(event_id)
            if before is not None and offset - before <= within:
                found.add(offset)
            here[event_id] = offset
        return found
