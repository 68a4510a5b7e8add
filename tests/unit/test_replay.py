"""What becomes of a dead letter, and the headers that its record is sent again with."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core.replay import MOST_TIMES, Fate, Rejected, fate_of, headers_again, replay_of, times_seen

LETTER = Rejected("llm.requests.v1", 3, 17, "admit", times_seen=2, carried=True, known_to_sink=False)
LOG = (0, 100)


@pytest.mark.parametrize(
    ("letter", "bounds", "sent_again", "fate"),
    [
        (LETTER, LOG, False, "send"),
        (LETTER, LOG, True, "sent before"),
        (LETTER, (18, 100), False, "send"),
        (LETTER, (19, 100), False, "log is gone"),
        (LETTER, (0, 17), False, "log is gone"),
        (LETTER, None, False, "log is gone"),
        (replace(LETTER, times_seen=3), LOG, False, "send"),
        (replace(LETTER, times_seen=4), LOG, False, "too many cycles"),
        (replace(LETTER, times_seen=4), LOG, True, "sent before"),
        (replace(LETTER, carried=False), LOG, False, "not carried"),
        (replace(LETTER, known_to_sink=True), LOG, False, "sink's"),
    ],
)
def test_the_fate_of_a_letter(letter: Rejected, bounds: tuple[int, int] | None, sent_again: bool, fate: Fate) -> None:
    """Sent while the log tells that it was not, and while it has come back fewer than three times."""
    assert fate_of(letter, 3, bounds, sent_again) == fate


def test_the_headers_are_the_originals_and_two() -> None:
    """Order, repetitions, nulls and bytes stay; the marks of an earlier cycle give way."""
    original = [
        ("a", b"\xff"),
        ("millstream-replay-of", b"t/0/1"),
        ("a", None),
        ("millstream-times-seen", b"1"),
        ("", b""),
    ]
    again = headers_again(original, LETTER)
    place = b"llm.requests.v1/3/17"
    assert again == [
        ("a", b"\xff"), ("a", None), ("", b""), ("millstream-times-seen", b"2"), ("millstream-replay-of", place),
    ]  # fmt: skip
    assert (times_seen(again), replay_of(again)) == (2, place)
    assert headers_again(again, LETTER) == again


@pytest.mark.parametrize(
    ("value", "count"),
    [(b"0", 0), (b"7", 7), (b"007", 7), (b"", 0), (None, 0), (b"-1", 0), (b"\xb2", 0), (b"9" * 9, MOST_TIMES), (b"9" * 10, 0)],
)  # fmt: skip
def test_a_count_that_is_none_is_zero(value: bytes | None, count: int) -> None:
    """Whatever a stranger puts into the header, the count fits its column."""
    assert times_seen([("other", b"5"), ("millstream-times-seen", value)]) == count
