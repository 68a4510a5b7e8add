"""Whether two accounts of the same things agree: what each of them says by id in, one line of a proof out."""

from __future__ import annotations

from collections.abc import Callable, Container, Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

Status = Literal["holds", "BROKEN", "not compared"]
Amounts = tuple[int | None, ...]

#: How many of the ids that differ a line names.
NAMED = 10


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two accounts: its name and its sums by figure; amounts that nobody knows are left out of a sum."""

    name: str
    figures: dict[str, int]


@dataclass(frozen=True, slots=True)
class Difference:
    """An id on which the two disagree, and how."""

    id: str
    what: str


@dataclass(frozen=True, slots=True)
class Line:
    """One comparison: `differing` ids in all, the first of them in `differences`; `notes` say what was left out, and why."""

    name: str
    left: Side
    right: Side
    differing: int = 0
    differences: tuple[Difference, ...] = ()
    notes: tuple[str, ...] = ()
    compared: bool = True

    @property
    def status(self) -> Status:
        """What came out."""
        if not self.compared:
            return "not compared"
        return "BROKEN" if self.differing else "holds"


def not_compared(name: str, left: str, right: str, why: str) -> Line:
    """The line for a comparison that cannot be made here."""
    return Line(name, Side(left, {}), Side(right, {}), notes=(why,), compared=False)


class Book:
    """What one side says: amounts by key, in nano-USD, tokens or counts, as `figures` name them.

    A key that is entered again adds up, so that what stands twice shows; an amount that is not known (None) stays so.
    `details` is compared in steps of four bytes, one for each name in `columns`.
    """

    def __init__(self, name: str, figures: Sequence[str], columns: Sequence[str] = ()) -> None:
        self.name = name
        self.figures = tuple(figures)
        self.columns = tuple(columns)
        self.entries: dict[Hashable, tuple[Amounts, str, bytes]] = {}

    def add(self, key: Hashable, amounts: Amounts, label: str = "", details: bytes = b"") -> None:
        """Enter amounts, in the order of `figures`; `label` is the id to show where the key is none."""
        if (known := self.entries.get(key)) is not None:
            amounts = tuple(None if a is None or b is None else a + b for a, b in zip(known[0], amounts, strict=True))
            label, details = known[1] or label, known[2]
        self.entries[key] = (amounts, label, details)

    def without(self, labels: Container[str]) -> int:
        """Leave out the entries with these labels; how many there were."""
        gone = [key for key, (_, label, _) in self.entries.items() if label in labels]
        for key in gone:
            del self.entries[key]
        return len(gone)

    def side(self) -> Side:
        """The sums."""
        sums = [0] * len(self.figures)
        for amounts, _, _ in self.entries.values():
            for index, amount in enumerate(amounts):
                sums[index] += amount or 0
        return Side(self.name, dict(zip(self.figures, sums, strict=True)))


def compare(
    name: str, left: Book, right: Book, notes: Sequence[str] = (), explain: Callable[[Hashable], str] = str
) -> Line:
    """The line on which two books stand beside each other, key by key; `explain` shows a key that has no label.

    Where both are empty because everything was left out, as `notes` say, nothing was compared.
    """
    found: list[Difference] = []
    differing = 0
    for key in [*left.entries, *(key for key in right.entries if key not in left.entries)]:
        what = _difference(left, right, key)
        if not what:
            continue
        differing += 1
        if len(found) < NAMED:
            entry = left.entries.get(key) or right.entries[key]
            found.append(Difference(entry[1] or explain(key), what))
    compared = bool(left.entries or right.entries or not notes)
    return Line(name, left.side(), right.side(), differing, tuple(found), tuple(notes), compared)


def _difference(left: Book, right: Book, key: Hashable) -> str:
    ours, theirs = left.entries.get(key), right.entries.get(key)
    if ours is None or theirs is None:
        return f"is not in {left.name}" if ours is None else f"is not in {right.name}"
    if ours[0] == theirs[0] and ours[2] == theirs[2]:
        return ""
    said = [
        f"{figure} {_shown(a)} in {left.name}, {_shown(b)} in {right.name}"
        for figure, a, b in zip(left.figures, ours[0], theirs[0], strict=True)
        if a != b
    ]
    told = {figure for figure, a, b in zip(left.figures, ours[0], theirs[0], strict=True) if a != b}
    other = [
        column
        for index, column in enumerate(left.columns)
        if ours[2][4 * index : 4 * index + 4] != theirs[2][4 * index : 4 * index + 4] and column not in told
    ]
    if other:
        said.append(f"another {', '.join(other)} in {right.name}")
    return "; ".join(said)


def _shown(amount: int | None) -> str:
    return "unknown" if amount is None else f"{amount:,}"
