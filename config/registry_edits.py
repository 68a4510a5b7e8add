"""The changes that can be made to a registry's contents, each as what it makes of them; nothing is written here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from config.registry_entries import WORDS, Contents, E, Entry, RegistryInvalid, name_of
from core.registry import Provider

Edit = Callable[[Contents], Contents]


def add(entry: Entry) -> Edit:
    """Add an entry; `RegistryInvalid` where its name is taken."""

    def edit(contents: Contents) -> Contents:
        kind = type(entry)
        if name_of(entry) in _section(contents, kind):
            raise RegistryInvalid(
                [f"{WORDS[kind].capitalize()} {name_of(entry)} is registered already; change it with `set`."]
            )
        return put(entry)(contents)

    return edit


def put(entry: Entry) -> Edit:
    """Add an entry, or take it in place of the one with its name."""
    return lambda contents: _with(contents, type(entry), {**_section(contents, type(entry)), name_of(entry): entry})


def remove(kind: type[Entry], name: str) -> Edit:
    """Remove an entry; `RegistryInvalid` where there is none of that name."""

    def edit(contents: Contents) -> Contents:
        found(contents, kind, name)
        return _with(contents, kind, {n: entry for n, entry in _section(contents, kind).items() if n != name})

    return edit


def enable(name: str, enabled: bool) -> Edit:
    """Let a provider serve, or not; `RegistryInvalid` for an unknown one."""
    return lambda contents: put(replace(found(contents, Provider, name), enabled=enabled))(contents)


def set_default(name: str) -> Edit:
    """Make a provider the default in place of the one that was; `RegistryInvalid` for an unknown one."""

    def edit(contents: Contents) -> Contents:
        found(contents, Provider, name)
        return replace(contents, providers={n: replace(p, default=n == name) for n, p in contents.providers.items()})

    return edit


def found(contents: Contents, kind: type[E], name: str) -> E:
    """The entry with a name; `RegistryInvalid` says which there are where there is none."""
    section = _section(contents, kind)
    if name not in section:
        there = f"there are {', '.join(sorted(section))}" if section else f"no {WORDS[kind]} is"
        raise RegistryInvalid([f"{WORDS[kind].capitalize()} {name} is not registered in the database; {there}."])
    return section[name]


def _section(contents: Contents, kind: type[E]) -> Mapping[str, E]:
    section: Mapping[str, E] = getattr(contents, f"{WORDS[kind]}s")
    return section


def _with(contents: Contents, kind: type[Entry], section: Mapping[str, Entry]) -> Contents:
    changed: dict[str, Any] = {f"{WORDS[kind]}s": section}
    return replace(contents, **changed)
