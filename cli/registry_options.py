"""Options that stand for the fields of an entry: `none` empties one, a repeated option makes a list."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from config.registry_entries import E, name_of, parse, plain

NONE = "none"


def switch_option(parser: argparse.ArgumentParser, field: str, on: str, off: str, text: str) -> None:
    """A field that is true with `--on` and false with `--off`."""
    pair = parser.add_mutually_exclusive_group()
    pair.add_argument(f"--{on}", dest=field, action="store_true", default=None, help=text)
    pair.add_argument(f"--{off}", dest=field, action="store_false", default=None, help=f"not so (--{on})")


def with_options(entry: E, arguments: argparse.Namespace, fields: Sequence[str]) -> E:
    """The entry with the fields whose options were given; `RegistryInvalid` names a value that cannot be used."""
    given: dict[str, Any] = {field: value for field in fields if (value := getattr(arguments, field)) is not None}
    for field, value in given.items():
        if value in (NONE, [NONE]):
            given[field] = [] if isinstance(value, list) else None
    return parse(type(entry), plain(entry) | given, f"{type(entry).__name__} {name_of(entry)}")
