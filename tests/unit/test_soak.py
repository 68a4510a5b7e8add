"""What makes the soak fail, and the picture it draws."""

from __future__ import annotations

import pytest
from rich.console import Console

from benchmarks.growth import Growth
from benchmarks.rounds import Parity
from benchmarks.soak import failures
from benchmarks.soak_report import picture
from core.reconcile import Book, Line, compare

FLAT, LEAK = Growth(0.0, 0.1, 4.0), Growth(5.0, 6.0, 4.0)
EVEN, LOST = Parity(10, 10, 10, 10), Parity(10, 9, 10, 10)


def line(*keys: str) -> Line:
    """A comparison of nothing with an account of these keys."""
    other = Book("other", ["rows"])
    for key in keys:
        other.add(key, (1,))
    return compare("answers = rows", Book("one", ["rows"]), other)


@pytest.mark.parametrize(
    ("growths", "parity", "lines", "missing", "words"),
    [
        ({"sink, memory": FLAT}, EVEN, [line()], 0, []),
        ({"sink, memory": FLAT, "meter, memory": LEAK}, EVEN, [line()], 0, ["meter, memory grows: by 5 and then 6"]),
        ({"sink, memory": FLAT}, LOST, [line()], 0, ["does not hold"]),
        ({"sink, memory": FLAT}, EVEN, [line(), line("x")], 0, ["answers = rows is BROKEN"]),
        ({"sink, memory": FLAT}, EVEN, [line()], 3, ["in 3 of the stretches"]),
        ({"sink, memory": LEAK}, LOST, [line("x")], 1, ["grows", "stretches", "does not hold", "BROKEN"]),
    ],
)
def test_what_makes_the_soak_fail(
    growths: dict[str, Growth], parity: Parity, lines: list[Line], missing: int, words: list[str]
) -> None:
    """Growth, a stretch without answers, a broken parity and a broken line of the proof each have their sentence."""
    found = failures(growths, parity, lines, missing)
    assert len(found) == len(words)
    assert all(word in sentence for word, sentence in zip(words, found, strict=True))


def test_the_picture_fits_a_narrow_terminal() -> None:
    """In 80 columns every process, every verdict and the worst minute are named whole."""
    names = ("admit", "complete", "meter", "sink", "kafka", "clickhouse", "simulator")
    report = {
        "settings": {"seconds": 1_800.0, "requests_per_second": 50.0, "stretch_seconds": 60.0},
        "requests_per_second_sent": 49.9,
        "latency_ms": [{"p50": 40.0 + n, "p99": 1_234.0 if n == 7 else 90.0} if n != 3 else None for n in range(30)],
        "processes": {name: {"memory_bytes": [2.0**27] * 30, "descriptors": [26.0] * 30} for name in names},
        "growth": {
            "sink less its windows, memory in bytes": {"first": 2.0**23, "second": 2.0**23, "limit": 2.0**22, "grows": True},
            "sink, descriptors": {"first": 0.0, "second": 0.0, "limit": 3.0, "grows": False},
        },
        "parity": {"sent": 90_000, "answers": 90_000, "usage_rows": 90_000, "provider_calls": 90_000, "open": 0, "holds": True},
        "reconcile": {"one": {"status": "holds"}, "other": {"status": "BROKEN"}},
    }  # fmt: skip
    console = Console(width=80, record=True)
    for part in picture(report, 80):
        console.print(part)
    text = console.export_text()
    assert all(name in text for name in names)
    assert "…" not in text and max(map(len, text.splitlines())) <= 80
    for words in ("30 minutes at 50 requests", "1,234 p99, ms", "GROWS", "+8.0 MiB", "flat", "BROKEN: other"):
        assert words in text, words
