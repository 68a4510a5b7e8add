"""Where named tasks come from: the shipped files, a deployment's folder of files, and on top of both the registry.

The shipped ones are in `config/tasks`, a folder of the same form is named by the setting `tasks_dir`. A task of the registry takes
the place of a file's; one without `input` only says what differs from the file's, and adds its prompt versions to that one's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from config.settings import Settings, SettingsError
from config.task_files import LARGEST_FILE, Task, read_task, task_of
from core.registry import StoredTask

SHIPPED = Path(__file__).parent / "tasks"


def from_files(settings: Settings) -> dict[str, Task]:
    """The tasks in files by name; `SettingsError` names file, field and what is wrong."""
    return {name: read_task(path) for name, path in _paths(settings).items()}


def stored(task: StoredTask, file: Task | None) -> Task:
    """A task of the registry, `file` being the one of its name that stands in a file; ValueError says what is wrong with it."""
    return _stored(task, None if file is None else file.document)


def problems_of(tasks: Iterable[StoredTask], settings: Settings) -> list[str]:
    """What is wrong with tasks of the registry, a sentence each that names task and field."""
    found = []
    for task in tasks:
        try:
            path = _paths(settings).get(task.name) if "input" not in orjson.loads(task.definition) else None
            _stored(task, None if path is None else read_task(path).document)
        except ValueError as problem:
            found.append(str(problem))
    return found


def _paths(settings: Settings) -> dict[str, Path]:
    paths = {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}
    if settings.tasks_dir is None:
        return paths
    folder = Path(settings.tasks_dir)
    if not folder.is_dir():
        raise SettingsError(f"Setting MILLSTREAM_TASKS_DIR is {folder}, which is no folder; make it or unset it.")
    for path in sorted(folder.iterdir()):
        if path.suffix == ".yml":
            raise SettingsError(f"Task file {path}: its name must end in .yaml; rename it.")
        if path.suffix == ".yaml":
            paths[path.stem] = path
    return paths


def _stored(task: StoredTask, file: Mapping[str, Any] | None) -> Task:
    try:
        if len(task.definition) > LARGEST_FILE:
            raise ValueError(f"it has {len(task.definition)} characters; a task may have {LARGEST_FILE}.")
        document = orjson.loads(task.definition)
        if "input" not in document:
            if file is None:
                raise ValueError(
                    "field input is missing, and there is no file of that name whose task it could add to."
                )
            document = _added(file, document)
        return _made(orjson.dumps({**document, "name": task.name}))
    except ValueError as problem:
        raise ValueError(f"Task {task.name} of the registry: {problem}") from None


def _added(file: Mapping[str, Any], document: Mapping[str, Any]) -> dict[str, Any]:
    """What a file says with what the registry says on top; a version of the same name takes the other's place."""
    own = document.get("prompts", [])
    if not isinstance(own, list):
        return {**file, **document}
    taken = {prompt.get("name") for prompt in own if isinstance(prompt, dict)}
    return {**file, **document, "prompts": [*(p for p in file["prompts"] if p["name"] not in taken), *own]}


@lru_cache(maxsize=256)
def _made(document: bytes) -> Task:
    """The task in JSON. Kept, because the registry is read again and again and its tasks seldom change."""
    return task_of(orjson.loads(document))
