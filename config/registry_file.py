"""A registry's contents as one YAML file that a company keeps in git, and back.

Names are keys, in order; fields at their default are left out; times are ISO 8601 in UTC. Writing what was read gives the
same text again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import yaml

from config.registry_entries import WORDS, Contents, E, Entry, RegistryInvalid, definition, parse, plain
from core.registry import Model, StoredTask

SECTIONS: Mapping[str, type[Any]] = {f"{word}s": kind for kind, word in WORDS.items()}
NOTHING = Contents()
TIMES = ("valid_from", "valid_until")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key given twice, of which PyYAML would keep the last and say nothing."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping; `RegistryInvalid` when a key stands in it twice."""
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise RegistryInvalid(
                    [f"The key in line {key.start_mark.line + 1} is no text, but a list or a mapping."]
                )
            if key.value in seen:
                raise RegistryInvalid(
                    [f"{key.value!r} stands twice, again in line {key.start_mark.line + 1}; keep one."]
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """YAML with texts of several lines, such as prompts, as they read."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    # A next line (U+0085) is a line end in YAML 1.1, which only a quoted text keeps.
    style = '"' if "\x85" in text else "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def to_yaml(contents: Contents) -> str:
    """The contents as YAML, the same text for the same contents."""
    document = {
        "providers": {name: _shown(entry, ("name",)) for name, entry in sorted(contents.providers.items())},
        "models": {name: _shown(entry, ("provider", "name")) for name, entry in sorted(contents.models.items())},
        "routes": {name: _shown(entry, ("name",)) for name, entry in sorted(contents.routes.items())},
        "tasks": {name: _shown(entry, ("name",)) for name, entry in sorted(contents.tasks.items())},
    }
    return dump(document)


def dump(document: Mapping[str, Any]) -> str:
    """Plain data as YAML, its keys in their order."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def load(text: str, keys: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """The mapping of plain data in a YAML text, and a sentence for each of its keys that is none of these.

    `RegistryInvalid` for no mapping, and for an empty one, which may be what is left of a file.
    """
    try:
        # A SafeLoader, which makes nothing but plain data.
        document = yaml.load(text, _Loader)
    except RegistryInvalid:
        raise
    except (yaml.YAMLError, ValueError, RecursionError) as why:
        # ValueError: a date that is none, such as 2026-02-30.
        raise RegistryInvalid([f"The file is no YAML: {' '.join(str(why).split())}."]) from None
    named = ", ".join(keys)
    if document is None or document == {}:
        raise RegistryInvalid([f"The file is empty; write out what shall be empty, such as `{keys[0]}: {{}}`."])
    if not isinstance(document, dict):
        raise RegistryInvalid([f"The file is no mapping; its keys are {named}."])
    return document, [f"The file has the unknown key {k!r}; its keys are {named}." for k in document if k not in keys]


def from_yaml(text: str, before: Contents = NOTHING) -> Contents:
    """What a YAML text makes of the contents before it: its sections take the place of theirs, those it leaves out stay.

    `RegistryInvalid` lists every key that is unknown and every value that cannot be used.
    """
    document, problems = load(text, tuple(SECTIONS))
    read = _Reading(document, problems)
    sections: dict[str, Any] = {key: dict(read.section(key, kind)) for key, kind in SECTIONS.items() if key in document}
    if problems:
        raise RegistryInvalid(problems)
    return replace(before, **sections)


class _Reading:
    """Reads the sections of a document and adds what is wrong to `problems`."""

    def __init__(self, document: Mapping[str, Any], problems: list[str]) -> None:
        self._document = document
        self._problems = problems

    def section(self, key: str, kind: type[E]) -> Iterator[tuple[str, E]]:
        """The entries of one section that can be used, by name."""
        section = self._document[key]
        if not isinstance(section, dict):
            self._problems.append(f"{key} is no mapping of names to entries; write `{key}: {{}}` to empty it.")
            return
        for name, given in section.items():
            where = f"{WORDS[kind].capitalize()} {name}"
            if given is not None and not isinstance(given, dict):
                self._problems.append(f"{where} is no mapping of fields to values.")
                continue
            try:
                yield str(name), parse(kind, _read(kind, str(name), given or {}, where), where)
            except RegistryInvalid as wrong:
                self._problems += wrong.problems


def _read(kind: type[Any], name: str, given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The plain data of an entry from what the file has under its name."""
    data = dict(given)
    named = {"provider": name.partition("/")[0], "name": name.partition("/")[2]} if kind is Model else {"name": name}
    if doubled := [field for field in named if field in data]:
        raise RegistryInvalid([f"{where} has the field {doubled[0]!r}, which its key already says; leave it out."])
    if kind is Model and not named["name"]:
        raise RegistryInvalid([f"{where} is not PROVIDER/MODEL, such as openai/gpt-5-mini."])
    if kind is StoredTask:
        return {**named, "definition": definition(data, where)}
    for field in TIMES:
        if field in data and data[field] is not None:
            data[field] = time_of(data[field], f"{where} has a {field}")
    if isinstance(data.get("targets"), list):
        data["targets"] = [{"model": target} if isinstance(target, str) else target for target in data["targets"]]
    return data | named


def time_of(value: object, what: str) -> int:
    """Microseconds since 1970 of an ISO 8601 text, a date or a time, in UTC where no zone is given.

    `RegistryInvalid` says of `what` that it is no time.
    """
    found: object = value
    # ValueError: no time. OverflowError: a time of year 9999 that is one of year 10000 in UTC.
    with suppress(ValueError, OverflowError):
        if isinstance(value, str):
            found = datetime.fromisoformat(value)
        elif isinstance(value, date) and not isinstance(value, datetime):
            found = datetime(value.year, value.month, value.day, tzinfo=UTC)
        if isinstance(found, datetime):
            found = found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
            return (found - EPOCH) // timedelta(microseconds=1)
    raise RegistryInvalid([f"{what} that is no time: {value!r}; write one such as 2026-12-01T00:00:00Z."])


def time_text(time_us: int) -> str:
    """Microseconds since 1970 as ISO 8601 in UTC, such as 2026-12-01T00:00:00Z."""
    return (EPOCH + timedelta(microseconds=time_us)).isoformat().replace("+00:00", "Z")


def _shown(entry: Entry, without: tuple[str, ...]) -> dict[str, Any]:
    """An entry as the file has it."""
    if isinstance(entry, StoredTask):
        return {field: value for field, value in plain(entry).items() if field not in without}
    defaults = {part.name: part.default for part in fields(entry)}
    shown = {
        field: value
        for field, value in plain(entry).items()
        if field not in without and getattr(entry, field) != defaults[field]
    }
    for field in TIMES:
        if field in shown:
            shown[field] = time_text(shown[field])
    if "targets" in shown:
        shown["targets"] = [t["model"] if t["weight"] == 1 else t for t in shown["targets"]]
    if "share" in shown and shown["share"].isdigit():
        shown["share"] = int(shown["share"])
    return shown
