"""Named tasks: of a task's name and its inputs, the messages that a model gets."""

from __future__ import annotations

import base64
import binascii
import difflib
import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self, cast

import orjson

from config.settings import Settings
from config.task_files import Prompt, Task
from config.task_sources import from_files, stored
from config.templates import TemplateError
from core.errors import error
from core.registry import StoredTask
from schemas.events import ContentPart, Error, LlmRequest, Message, Parameters

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request ready for a model: messages made, inputs taken out, parameters filled.

    `task` is its task's name in routes; `prompt_version` is `TASK/VERSION`, None where no task made messages. `repair` asks
    for one more call when an answer does not follow `parameters.response_format`.
    """

    request: LlmRequest
    task: str | None
    prompt_version: str | None
    repair: bool


class Tasks:
    """The tasks of a deployment by name; immutable once loaded."""

    def __init__(self, tasks: Mapping[str, Task], most_bytes: int, fetches_pages: bool = False) -> None:
        self._tasks = dict(sorted(tasks.items()))
        self._most_bytes = most_bytes
        self._fetches_pages = fetches_pages

    @classmethod
    def load(cls, settings: Settings) -> Tasks:
        """The shipped tasks and the deployment's own files; `SettingsError` names file, field and what is wrong."""
        return cls(from_files(settings), settings.max_request_bytes, settings.task_fetch_urls)

    def with_stored(self, tasks: Iterable[StoredTask]) -> Self:
        """These tasks, and those of a registry in place of the ones with their names."""
        found = dict(self._tasks)
        for each in tasks:
            try:
                found[each.name] = stored(each, self._tasks.get(each.name))
            except ValueError as wrong:
                # The registry was checked against the files as they are now, and these were read at the start.
                LOG.error("%s Start the worker again; until then its task is the file's.", wrong)
        return type(self)(found, self._most_bytes, self._fetches_pages)

    def __iter__(self) -> Iterator[Task]:
        return iter(self._tasks.values())

    def get(self, name: str | None) -> Task | None:
        """The task of this name, None when there is none."""
        return self._tasks.get(name) if name is not None else None

    def nearest(self, name: str) -> list[str]:
        """Up to three names of tasks that look like `name`, the likeliest first; all names when none does."""
        return difflib.get_close_matches(name, self._tasks, n=3, cutoff=0.5) or list(self._tasks)

    def page_of(self, request: LlmRequest) -> str | None:
        """The URL of the page whose text a request wants among its inputs; None where there is nothing to fetch."""
        task = self.get(request["task"]) if self._fetches_pages else None
        if task is None or task.page is None:
            return None
        values = inputs_of(request["input"])
        return None if isinstance(values, str) or not _stands_alone(task, values) else str(values[task.page[0]])

    def prepare(self, request: LlmRequest, sticky: str, page: str | None = None) -> Prepared | Error:
        """The request with the messages that its task makes of its inputs, or the error its caller gets.

        The same request, `sticky` (whose hash chooses among the prompt's versions where the request names none: the user, or else
        the request id) and
        `page` (the text behind `page_of`) always give the same. A request without inputs that has messages keeps them, and
        its task is only a name for routes.
        """
        task = self.get(request["task"])
        wanted = request["prompt_version"]
        if request["input"] is None and (request["messages"] or task is None):
            if wanted is not None:
                return _refused(
                    f"Field prompt_version is {wanted[:80]!r} and field input is not given, so no prompt makes messages; "
                    "send the task's inputs."
                )
            return Prepared(request, task.route if task else request["task"], None, False)
        if task is None:
            return self._unknown(request["task"])
        values = inputs_of(request["input"])
        if isinstance(values, str):
            return _refused(values)
        if (problem := task.inputs.problem(values, "input")) is not None:
            return _refused(f"{problem} (Task {task.name}.)")
        if _stands_alone(task, values):
            if page is None:
                return _refused(_no_page(task))
            values = {**values, task.page[1]: page}  # type: ignore[index]
        version = choose(task, sticky) if wanted is None else named(task, wanted)
        if version is None:
            names = ", ".join(each.name for each in task.prompts)
            return _refused(
                f"Field prompt_version is {str(wanted)[:80]!r}; the versions of task {task.name} are {names}."
            )
        made = self.messages(task, version, values)
        if isinstance(made, str):
            return _refused(made)
        filled: LlmRequest = {
            **request,
            "messages": [*made, *request["messages"]],
            "input": None,
            "parameters": _parameters(task, request["parameters"]),
        }
        return Prepared(filled, task.route, f"{task.name}/{version.name}", task.repair)

    def messages(self, task: Task, version: Prompt, values: Mapping[str, Any]) -> list[Message] | str:
        """The messages of a prompt for inputs that follow the schema, or one sentence that says why there are none."""
        complete = task.inputs.completed(values)
        parts: list[ContentPart] = []
        for attached in task.attachments:
            if complete[attached.data] is None:
                continue
            try:
                data = base64.b64decode(complete[attached.data], validate=True)
            except (binascii.Error, ValueError, TypeError):
                return f"Field input.{attached.data} is not base64 text; encode the bytes."
            parts.append(_part(attached.type, media_type=complete[attached.media_type], data=data))
            # The text of the prompt says that there is one, not what is in it.
            complete[attached.data] = attached.type
        try:
            system = version.system.render(complete, self._most_bytes) if version.system else ""
            user = version.user.render(complete, self._most_bytes - len(system.encode()))
        except TemplateError as problem:
            return f"Prompt {task.name}/{version.name} cannot be made of this input: {problem}"
        if user:
            parts.append(_part("text", text=user))
        if not parts:
            return f"Prompt {task.name}/{version.name} comes out empty with this input; give it more."
        turns = [Message(role="user", content=parts)]
        return [Message(role="system", content=[_part("text", text=system)]), *turns] if system else turns

    def _unknown(self, name: str | None) -> Error:
        if name is None:
            return _refused("Field input is given and field task is not; name the task that the input is for.")
        return _refused(
            f"Field task is {name[:80]!r}, which is no task here; the nearest are {', '.join(self.nearest(name))}."
        )


def choose(task: Task, sticky: str) -> Prompt:
    """The version of a task's prompt for this key: the same for the same key, weights and order of versions."""
    total = sum(prompt.weight for prompt in task.prompts)
    digest = hashlib.sha256(f"{task.name}\0{sticky}".encode(errors="replace")).digest()
    place = int.from_bytes(digest[:8]) * total >> 64
    for prompt in task.prompts:
        place -= prompt.weight
        if place < 0:
            return prompt
    raise AssertionError("a hash below 1 lies within the weights")


def named(task: Task, version: str) -> Prompt | None:
    """The version of a task's prompt that has this name, whatever its share; None where there is none."""
    return next((prompt for prompt in task.prompts if prompt.name == version), None)


def inputs_of(text: str | None) -> dict[str, Any] | str:
    """The inputs in a request's `input`, none where it is left out; one sentence where they are no JSON object."""
    try:
        values = orjson.loads(text if text is not None else "{}")
    except orjson.JSONDecodeError as problem:
        return f"Field input is not JSON ({problem}); send a JSON object in text."
    return values if isinstance(values, dict) else "Field input is no JSON object; send one, in text."


def _stands_alone(task: Task, values: Mapping[str, Any]) -> bool:
    """Whether a URL is all that the inputs give to read."""
    if task.page is None or values.get(task.page[0]) is None:
        return False
    content = (task.page[1], *(attached.data for attached in task.attachments))
    return all(values.get(name) is None for name in content)


def _no_page(task: Task) -> str:
    url, into = task.page or ("", "")
    return (
        f"Field input.{url} stands alone and this deployment fetches no pages (MILLSTREAM_TASK_FETCH_URLS is off); "
        f"fetch the page and send its text as input.{into}."
    )


def _parameters(task: Task, given: Parameters) -> Parameters:
    """What the request sets, else what the task does."""
    ours = {**dict(task.parameters), "response_format": task.output}
    return cast(Parameters, {**given, **{name: ours[name] for name in ours if given.get(name) is None}})


def _part(
    kind: str, *, text: str | None = None, media_type: str | None = None, data: bytes | None = None
) -> ContentPart:
    return ContentPart(
        type=kind, text=text, media_type=media_type, url=None, data=data,
        tool_call_id=None, tool_name=None, tool_arguments=None,
    )  # fmt: skip


def _refused(why: str) -> Error:
    return error("caller_invalid_request", why)
