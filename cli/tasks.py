"""`millstream tasks`: which named tasks there are, what one takes, the messages that it makes of an input, and storing one."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from cli.errors import CommandError
from cli.lines import INPUT_HELP, input_text
from cli.registry_change import change_options, commit, read
from cli.stackfile import stack_settings
from config.database import open_database
from config.registry_edits import Edit, add, found, put, remove
from config.registry_entries import Contents, RegistryInvalid, definition
from config.registry_file import dump
from config.settings import Settings
from config.task_files import Prompt, Task, read_document
from config.tasks import Tasks, choose, inputs_of, named
from core.registry import StoredTask
from schemas.events import ContentPart


def describe(parser: argparse.ArgumentParser) -> None:
    """The actions and their options."""
    doing = parser.add_subparsers(dest="doing", required=True, metavar="WHAT")
    doing.add_parser("list", help="every task, its versions and what it is for")
    show = doing.add_parser("show", help="a task as it is written")
    render = doing.add_parser("render", help="the messages that a task makes of an input, without sending them")
    for each in (show, render):
        each.add_argument("name", metavar="NAME")
    render.add_argument("--input", required=True, metavar="FILE", help=INPUT_HELP)
    render.add_argument("--version", metavar="NAME", help="this version of the prompt, whatever its share")
    render.add_argument("--user", default="", metavar="NAME", help="the version that this user's requests get")
    render.add_argument("--json", action="store_true", help="print the messages as JSON")
    for name, text in (
        ("add", "store a task, or versions of a file's prompt, in the registry; workers use it at once"),
        ("set", "store it in place of the one of its name"),
    ):
        storing = doing.add_parser(name, help=text, allow_abbrev=False)
        storing.add_argument("file", metavar="FILE.yaml")
        change_options(storing)
    removing = doing.add_parser(
        "remove", help="remove a stored task; one of its name in a file serves again", allow_abbrev=False
    )
    removing.add_argument("name", metavar="NAME")
    change_options(removing)


def run(arguments: argparse.Namespace) -> int:
    """Do what the action says."""
    settings = stack_settings()
    match arguments.doing:
        case "add":
            return commit(settings, add(_stored(arguments.file)), arguments)
        case "set":
            return commit(settings, _set(_stored(arguments.file)), arguments)
        case "remove":
            return commit(settings, remove(StoredTask, arguments.name), arguments)
    tasks = _tasks(settings)
    if arguments.doing == "list":
        _list(tasks)
        return 0
    task = tasks.get(arguments.name)
    if task is None:
        near = ", ".join(tasks.nearest(arguments.name))
        raise CommandError(f"There is no task {arguments.name!r}; the nearest are {near}.")
    if arguments.doing == "show":
        print(f"# {_place(task)}")
        sys.stdout.write(task.path.read_text("utf-8") if task.path else dump(task.document))
        return 0
    _render(tasks, task, arguments)
    return 0


def _stored(file: str) -> StoredTask:
    document = read_document(Path(file))
    name = document.pop("name", None)
    if not isinstance(name, str):
        raise CommandError(f"File {file} does not name its task; begin with `name: ...`.")
    try:
        return StoredTask(name, definition(document, f"Task {name}"))
    except RegistryInvalid as wrong:
        raise CommandError(str(wrong)) from None


def _set(task: StoredTask) -> Edit:
    def edit(contents: Contents) -> Contents:
        found(contents, StoredTask, task.name)
        return put(task)(contents)

    return edit


def _tasks(settings: Settings) -> Tasks:
    """The tasks of the files, and on top those of the registry where there is one."""
    files = Tasks.load(settings)
    url = open_database(settings.database_url).url
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
        return files
    return files.with_stored(read(settings)[1].tasks)


def _place(task: Task) -> str:
    return str(task.path) if task.path else "stored in the registry"


def _list(tasks: Tasks) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("task", "from", "route", "inputs", "versions", "for"):
        table.add_column(name, no_wrap=name in ("task", "from", "route", "versions"))
    for task in tasks:
        needed = set(task.inputs.schema.get("required", ()))
        inputs = (name if name in needed else f"[{name}]" for name in task.inputs.schema["properties"])
        total = sum(version.weight for version in task.prompts)
        versions = (f"{version.name} {100 * version.weight / total:.4g}%" for version in task.prompts)
        row = (
            task.name,
            "file" if task.path else "registry",
            task.route,
            " ".join(inputs),
            ", ".join(versions),
            task.description,
        )
        table.add_row(*(cell.replace("[", r"\[") for cell in row))
    Console().print(table)


def _render(tasks: Tasks, task: Task, arguments: argparse.Namespace) -> None:
    values = inputs_of(input_text(arguments.input))
    assert not isinstance(values, str)
    if (problem := task.inputs.problem(values, "input")) is not None:
        raise CommandError(problem)
    version = _version(task, arguments.version) if arguments.version else choose(task, arguments.user)
    messages = tasks.messages(task, version, values)
    if isinstance(messages, str):
        raise CommandError(messages)
    if arguments.json:
        shown = [{"role": m["role"], "content": [_shown(part) for part in m["content"]]} for m in messages]
        print(json.dumps({"prompt_version": f"{task.name}/{version.name}", "messages": shown}, ensure_ascii=False))
        return
    for message in messages:
        print(f"--- {message['role']} ({task.name}/{version.name})")
        for part in message["content"]:
            print(
                _shown(part).get("text") or f"[{part['type']}, {part['media_type']}, {len(part['data'] or b'')} bytes]"
            )


def _version(task: Task, name: str) -> Prompt:
    version = named(task, name)
    if version is None:
        names = ", ".join(each.name for each in task.prompts)
        raise CommandError(f"Task {task.name} has no version {name!r}; it has {names}.")
    return version


def _shown(part: ContentPart) -> dict[str, object]:
    if part["type"] == "text":
        return {"type": "text", "text": part["text"]}
    return {"type": part["type"], "media_type": part["media_type"], "bytes": len(part["data"] or b"")}
