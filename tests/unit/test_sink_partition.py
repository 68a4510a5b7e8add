"""Where a partition goes on, and which events repeat an earlier one."""

from __future__ import annotations

import pytest

from sinks.partition import Resume, resume_from
from sinks.window import Window


@pytest.mark.parametrize(
    ("committed", "metadata", "low", "high", "resume"),
    [
        (-1001, None, 0, 500, Resume(0, None)),  # nothing was ever committed
        (-1001, None, 40, 500, Resume(40, None)),  # and retention has passed
        (100, "", 0, 500, Resume(100, None)),
        (100, "100-199", 0, 500, Resume(100, 199)),  # a batch was begun
        (100, "100-199", 150, 500, Resume(100, 199)),  # and retention has taken a part of it
        (100, "100-199", 200, 500, Resume(100, 199)),  # or all of it
        (100, "", 200, 500, Resume(100, 199)),  # or what came after the last batch
        (100, "100-199", 0, 150, Resume(100, None)),  # or the broker has lost its end
        (100, "100-199", 0, 50, Resume(0, None)),  # or the topic was made anew
        (100, "90-199", 0, 500, Resume(100, None)),  # the bounds of another batch
        (100, "somebody's note", 0, 500, Resume(100, None)),
    ],
)
def test_resume(committed: int, metadata: str | None, low: int, high: int, resume: Resume) -> None:
    """The recorded bounds of a batch are kept as long as the log still has its end."""
    assert resume_from(committed, metadata, low, high) == resume


def test_a_repetition_is_an_event_seen_within_the_distance() -> None:
    """An id counts as repeated up to the fixed distance from where it last stood, repetitions included."""
    window = Window(0, within=10)
    window.note(b"a", 0)
    window.note(b"b", 1)
    assert window.repetitions([(b"a", 10), (b"b", 12), (b"c", 13), (b"c", 14), (None, 15), (None, 16)]) == {
        10,
        14,
    }
    window.note(b"a", 10)
    assert window.repetitions([(b"a", 20)]) == {20}


def test_a_window_rebuilt_from_the_distance_before_decides_the_same() -> None:
    """Forgetting what lies further back, or never having read it, changes no answer."""
    ids = [bytes([offset * 7 % 13]) for offset in range(60)]
    whole, rebuilt = Window(0, within=10), Window(30, within=10)
    for offset, event_id in enumerate(ids[:40]):
        whole.note(event_id, offset)
        whole.forget_old()
        if offset >= 30:
            rebuilt.note(event_id, offset)
    asked = list(zip(ids[40:], range(40, 60), strict=True))
    assert whole.repetitions(asked) == rebuilt.repetitions(asked)
