"""`millstream tasks`: which named tasks there are, what one takes, and the messages that it makes of an input."""

from __future__ import annotations

import argparse
import json
import sys

from cli.errors import CommandError
from cli.lines import INPUT_HELP, input_text
from cli.stackfile import stack_settings
from config.task_files import Prompt, Task
from config.tasks import Tasks, choose, inputs_of
from schemas.events import ContentPart


def describe(parser: argparse.ArgumentParser) -> None:
    """List them, show one, or render one."""
    doing = parser.add_subparsers(dest="doing", required=True, metavar="WHAT")
    doing.add_parser("list", help="every task, its versions and what it is for")
    show = doing.add_parser("show", help="a task's file")
    render = doing.add_parser("render", help="the messages that a task makes of an input, without sending them")
    for each in (show, render):
        each.add_argument("name", metavar="NAME")
    render.add_argument("--input", required=True, metavar="FILE", help=INPUT_HELP)
    render.add_argument("--version", metavar="NAME", help="this version of the prompt, whatever its weight")
    render.add_argument("--user", default="", metavar="NAME", help="the version that this user's requests get")
    render.add_argument("--json", action="store_true", help="print the messages as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print what was asked for."""
    tasks = Tasks.load(stack_settings())
    if arguments.doing == "list":
        _list(tasks)
        return 0
    task = tasks.get(arguments.name)
    if task is None:
        near = ", ".join(tasks.nearest(arguments.name))
        raise CommandError(f"There is no task {arguments.name!r}; the nearest are {near}.")
    if arguments.doing == "show":
        print(f"# {task.path}")
        sys.stdout.write(task.path.read_text("utf-8"))
        return 0
    _render(tasks, task, arguments)
    return 0


def _list(tasks: Tasks) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("task", "route", "inputs", "versions", "for"):
        table.add_column(name, no_wrap=name in ("task", "route", "versions"))
    for task in tasks:
        needed = set(task.inputs.schema.get("required", ()))
        inputs = (name if name in needed else f"[{name}]" for name in task.inputs.schema["properties"])
        total = sum(version.weight for version in task.prompts)
        versions = (f"{version.name} {version.weight / total:.0%}" for version in task.prompts)
        row = (task.name, task.route, " ".join(inputs), ", ".join(versions), task.description)
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
    found = next((version for version in task.prompts if version.name == name), None)
    if found is None:
        names = ", ".join(version.name for version in task.prompts)
        raise CommandError(f"Task {task.name} has no version {name!r}; it has {names}.")
    return found


def _shown(part: ContentPart) -> dict[str, object]:
    if part["type"] == "text":
        return {"type": "text", "text": part["text"]}
    return {"type": part["type"], "media_type": part["media_type"], "bytes": len(part["data"] or b"")}
