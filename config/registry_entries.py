"""Providers, models, routes and tasks as plain data and back: what the rows, the audit and the YAML file hold of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from decimal import Decimal
from typing import Any, TypeVar

import orjson
from pydantic import TypeAdapter, ValidationError

from core.registry import Model, Provider, Route, StoredTask

Entry = Provider | Model | Route | StoredTask
E = TypeVar("E", bound=Provider | Model | Route | StoredTask)
#: What each kind of entry is called.
WORDS: Mapping[type[Any], str] = {Provider: "provider", Model: "model", Route: "route", StoredTask: "task"}
_ADAPTERS: Mapping[type[Any], TypeAdapter[Any]] = {kind: TypeAdapter(kind) for kind in WORDS}


class RegistryInvalid(ValueError):
    """A registry that must not be used; `problems` has a sentence for each thing that is wrong with it."""

    def __init__(self, problems: list[str] | tuple[str, ...]) -> None:
        super().__init__(" ".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Contents:
    """What a database or a file holds of a registry: providers, routes and tasks by name, models by `provider/model`."""

    providers: Mapping[str, Provider] = field(default_factory=dict)
    models: Mapping[str, Model] = field(default_factory=dict)
    routes: Mapping[str, Route] = field(default_factory=dict)
    tasks: Mapping[str, StoredTask] = field(default_factory=dict)

    def by_subject(self) -> dict[str, Entry]:
        """Every entry by what it is called in the audit, such as `route extraction`."""
        kinds: tuple[tuple[str, Mapping[str, Entry]], ...] = (
            ("provider", self.providers),
            ("model", self.models),
            ("route", self.routes),
            ("task", self.tasks),
        )
        return {f"{kind} {name}": entry for kind, entries in kinds for name, entry in sorted(entries.items())}


def name_of(entry: Entry) -> str:
    """What an entry is called among its like: a model `provider/model`."""
    return entry.full_name if isinstance(entry, Model) else entry.name


def plain(entry: Entry) -> dict[str, Any]:
    """An entry as JSON would have it: sets sorted, decimals as text; a task as its file would."""
    if isinstance(entry, StoredTask):
        return {"name": entry.name, **orjson.loads(entry.definition)}
    return {part.name: _plain(getattr(entry, part.name)) for part in fields(entry)}


def definition(document: Mapping[str, Any], where: str) -> str:
    """The definition of a stored task; `RegistryInvalid` says of `where` what JSON cannot hold."""
    try:
        return orjson.dumps(document).decode()
    except TypeError as problem:
        raise RegistryInvalid(
            [f"{where} cannot be stored as JSON ({problem}); write keys and values as text."]
        ) from None


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in sorted(value.items())}
    if is_dataclass(value):
        return {part.name: _plain(getattr(value, part.name)) for part in fields(value)}
    return value


def parse(kind: type[E], data: Mapping[str, Any], where: str) -> E:
    """The entry in plain data; `RegistryInvalid` says of `where` which field is unknown or cannot be used."""
    known = [part.name for part in fields(kind)]
    problems = [
        f"{where} has the unknown field {name!r}; the fields are {', '.join(known)}."
        for name in data
        if name not in known
    ]
    if isinstance(targets := data.get("targets"), list):
        problems += [
            f"{where} has a target with the unknown field {name!r}; the fields are model, weight."
            for target in targets
            if isinstance(target, dict)
            for name in target.keys() - {"model", "weight"}
        ]
    try:
        entry: E = _ADAPTERS[kind].validate_python({name: data[name] for name in known if name in data})
    except ValidationError as invalid:
        for wrong in invalid.errors(include_url=False, include_input=False):
            place = ".".join(str(part) for part in wrong["loc"])
            problems.append(f"{where} has a {place} that cannot be used: {wrong['msg'].rstrip('.')}.")
        raise RegistryInvalid(problems) from None
    if isinstance(entry, StoredTask) and not _is_object(entry.definition):
        problems.append(
            f"{where} has a definition that is no JSON object; remove the task, or add it again from its file."
        )
    if problems:
        raise RegistryInvalid(problems)
    return entry


def _is_object(text: str) -> bool:
    try:
        return isinstance(orjson.loads(text), dict)
    except orjson.JSONDecodeError:
        return False
