"""The numbered steps of the store's schema: files `NNNN_name.sql` of statements that are safe to run again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Migration:
    """One step."""

    version: int
    name: str
    statements: tuple[str, ...]


def migrations() -> tuple[Migration, ...]:
    """Every step, oldest first."""
    found = []
    for path in sorted(Path(__file__).parent.glob("*.sql")):
        lines = [line for line in path.read_text("utf-8").splitlines() if not line.startswith("--")]
        statements = tuple(text for part in "\n".join(lines).split(";\n") if (text := part.strip(" \n;")))
        number, _, name = path.stem.partition("_")
        found.append(Migration(int(number), name, statements))
    return tuple(found)
