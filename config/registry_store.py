"""The registry in the database: read as a whole, and changed as a whole in one transaction with an audit row for each entry."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Table, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from config import gate
from config.registry_entries import WORDS, Contents, E, Entry, RegistryInvalid, parse, plain
from config.registry_models import MODELS, PROVIDERS, REGISTRY_AUDIT, REGISTRY_VERSION, ROUTES, TASKS
from core.registry import Model, Provider, Route, StoredTask

#: Removed rows go before the rows that others need, so models leave before providers and come after them.
TABLES: tuple[tuple[type[Entry], Table], ...] = (
    (Provider, PROVIDERS), (Model, MODELS), (Route, ROUTES), (StoredTask, TASKS),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Difference:
    """One entry that a change touches, such as `route extraction`, in plain data before and after.

    `action` is `add`, `update` or `remove`, or another word for what happened.
    """

    action: str
    subject: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None

    def fields(self) -> dict[str, tuple[Any, Any]]:
        """What differs, field by field: the value before and after, None where there is no entry."""
        before, after = self.before or {}, self.after or {}
        return {
            name: (before.get(name), after.get(name))
            for name in (after or before)
            if before.get(name) != after.get(name)
        }


@dataclass(frozen=True, slots=True)
class Changed:
    """What a change did, and the registry's version after it; no differences leave the version as it was."""

    version: int
    differences: tuple[Difference, ...]


def contents_of(db: Connection) -> Contents:
    """What the database holds; `RegistryInvalid` names every row that cannot be read."""
    problems: list[str] = []

    def rows(kind: type[E], table: Table) -> Iterable[E]:
        for row in db.execute(select(table)):
            data = dict(row._mapping)
            name = f"{data['provider']}/{data['name']}" if kind is Model else data["name"]
            try:
                yield parse(kind, data, f"{WORDS[kind].capitalize()} {name}")
            except RegistryInvalid as wrong:
                problems.extend(wrong.problems)

    found = Contents(
        {provider.name: provider for provider in rows(Provider, PROVIDERS)},
        {model.full_name: model for model in rows(Model, MODELS)},
        {route.name: route for route in rows(Route, ROUTES)},
        {task.name: task for task in rows(StoredTask, TASKS)},
    )
    if problems:
        raise RegistryInvalid(problems)
    return found


def version_of(db: Connection) -> int:
    """How many changes there have been."""
    return int(db.execute(select(REGISTRY_VERSION.c.version)).scalar() or 0)


def differences(before: Contents, after: Contents) -> tuple[Difference, ...]:
    """What has to happen to `before` so that it is `after`, by the names of the entries."""
    old, new = before.by_subject(), after.by_subject()
    found = []
    for subject in dict.fromkeys((*old, *new)):
        was, becomes = old.get(subject), new.get(subject)
        if was == becomes:
            continue
        action = "add" if was is None else "remove" if becomes is None else "update"
        found.append(Difference(action, subject, plain(was) if was else None, plain(becomes) if becomes else None))
    return tuple(found)


def change(
    db: Connection, edit: Callable[[Contents], Contents], check: Callable[[Contents, Contents], None], by: str, now: int
) -> Changed:
    """Bring the database to what `edit` makes of its contents, if `check(before, after)` raises nothing.

    One change at a time: others wait for the end of the transaction. `by` is who asked for it, `now` in microseconds since
    1970; both stand in the audit.
    """
    version = take_version(db)
    before = contents_of(db)
    after = edit(before)
    found = differences(before, after)
    check(before, after)
    if not found:
        return Changed(version, ())
    _write(db, before, after)
    return audited(db, version, found, by, now)


def audited(db: Connection, version: int, found: tuple[Difference, ...], by: str, now: int) -> Changed:
    """Write down what a change did, and make the registry one version newer than `version`, which was taken before."""
    version += 1
    db.execute(update(REGISTRY_VERSION).values(version=version))
    db.execute(
        insert(REGISTRY_AUDIT),
        [
            {
                "version": version, "changed_at": now, "changed_by": by[:256], "action": one.action,
                "subject": one.subject, "before": one.before, "after": one.after,
            }
            for one in found
        ],
    )  # fmt: skip
    return Changed(version, found)


def take_version(db: Connection) -> int:
    """The version, its row locked until the end of the transaction; nobody works on requests until then."""
    gate.close(db)
    dialect = postgresql if db.dialect.name == "postgresql" else sqlite
    db.execute(dialect.insert(REGISTRY_VERSION).values(id=1, version=0).on_conflict_do_nothing())
    return int(db.execute(select(REGISTRY_VERSION.c.version).with_for_update()).scalar_one())


def _write(db: Connection, before: Contents, after: Contents) -> None:
    for kind, table in TABLES:
        old = {name: e for name, e in before.by_subject().items() if isinstance(e, kind)}
        new = {name: e for name, e in after.by_subject().items() if isinstance(e, kind)}
        for name, entry in old.items():
            if new.get(name) != entry:
                keys = [column == getattr(entry, column.name) for column in table.primary_key.columns]
                db.execute(table.delete().where(*keys))
        rows = [_row(entry) for name, entry in new.items() if old.get(name) != entry]
        if rows:
            db.execute(insert(table), rows)


def _row(entry: Entry) -> dict[str, Any]:
    return {"name": entry.name, "definition": entry.definition} if isinstance(entry, StoredTask) else plain(entry)
