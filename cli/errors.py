"""The one way in which a command says that it cannot go on."""

from __future__ import annotations


class CommandError(Exception):
    """One sentence with the value at fault and the next action; the command prints it and exits with 2."""
