"""Text files that a command reads and writes, `-` being standard input."""

from __future__ import annotations

import sys
from pathlib import Path

from cli.errors import CommandError


def read_text(path: str) -> str:
    """A file's text, in UTF-8; `CommandError` where it cannot be read."""
    try:
        return sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        why = problem.strerror if isinstance(problem, OSError) else "it is not UTF-8"
        raise CommandError(f"File {path} cannot be read ({why}); give another path.") from None


def write_text(path: str | None, text: str) -> None:
    """Write a file, standard output where no path is given; `CommandError` where it cannot be written."""
    if path is None:
        sys.stdout.write(text)
        return
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as problem:
        raise CommandError(f"File {path} cannot be written ({problem.strerror}); give another path.") from None
