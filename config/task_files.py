"""Named tasks as they are written: one YAML file a task, or an entry of the registry, checked whole before anything runs on it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from config.json_schema import Schema
from config.settings import SettingsError
from config.templates import Template, TemplateError

LARGEST_FILE = 200_000

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Prompt(_Strict):
    name: Name
    #: Percent of the traffic; what all shares leave goes to the versions without one, by weight.
    share: Annotated[float, Field(ge=0, le=100)] | None = None
    weight: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    system: str | None = None
    user: str


class _Attachment(_Strict):
    type: Literal["image", "audio", "file"]
    data: str
    media_type: str


class _Page(_Strict):
    url: str
    into: str


class Defaults(_Strict):
    """Parameters for requests that do not set them."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    max_output_tokens: Annotated[int, Field(gt=0, le=10_000_000)] | None = None
    reasoning_effort: Literal["minimal", "low", "medium", "high"] | None = None


class _File(_Strict):
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
    description: Annotated[str, Field(min_length=1)]
    route: Name | None = None
    input: dict[str, Any]
    output: dict[str, Any] | None = None
    parameters: Defaults = Defaults()
    repair: bool = False
    attach: list[_Attachment] = []
    page: _Page | None = None
    prompts: Annotated[list[_Prompt], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A version of a task's prompt; of the traffic it gets its `weight` among all versions' weights."""

    name: str
    weight: int
    system: Template | None
    user: Template


@dataclass(frozen=True, slots=True)
class Attachment:
    """Inputs that go to the model as a content part: base64 text in the input `data`, its type in the input `media_type`."""

    type: str
    data: str
    media_type: str


@dataclass(frozen=True, slots=True)
class Task:
    """A named task, `document` as it was written, in the file `path` or in the registry. `route` is the task's name in routes, `output` the JSON schema of answers, in text.

    `page` names two inputs: a URL, and the one that its page's text goes into.
    """

    name: str
    description: str
    route: str
    inputs: Schema
    output: str | None
    parameters: Defaults
    repair: bool
    attachments: tuple[Attachment, ...]
    page: tuple[str, str] | None
    prompts: tuple[Prompt, ...]
    document: Mapping[str, Any]
    path: Path | None


def read_task(path: Path) -> Task:
    """The task in a file; `SettingsError` names file, field and what is wrong."""
    document = read_document(path)
    try:
        if path.stem != document.get("name", path.stem):
            raise _Wrong(f"field name is {document['name']!r}; it must be the file's own, {path.stem!r}.")
        return _task(document, path)
    except _Wrong as wrong:
        raise SettingsError(f"Task file {path}: {wrong}") from None


def read_document(path: Path) -> dict[str, Any]:
    """What a file says of a task, not yet checked; `SettingsError` when it is no mapping in YAML."""
    try:
        document = _loaded(path)
        if not isinstance(document, dict):
            raise _Wrong("it is no mapping; begin with `name: ...`.")
        return document
    except _Wrong as wrong:
        raise SettingsError(f"Task file {path}: {wrong}") from None


def task_of(document: Mapping[str, Any]) -> Task:
    """The task in plain data; ValueError says in one sentence which field is wrong."""
    return _task(document, None)


class _Wrong(ValueError):
    """A sentence that begins with the field."""


class _Loader(yaml.SafeLoader):
    """YAML without aliases, which could stand for endless data, and whose keys are texts that stand once."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise _Wrong("it has an alias (*name); write the value out.")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        names = [key.value for key, _ in node.value]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise _Wrong(f"line {node.start_mark.line + 1} has the key {twice!r} twice; keep one.")
        found = super().construct_mapping(node, deep)
        for name in found:
            if not isinstance(name, str):
                # YAML 1.1 reads on, off, yes and no as booleans.
                raise _Wrong(
                    f"line {node.start_mark.line + 1} has the key {name!r}, which is no text; put it into quotes."
                )
        return found


def _loaded(path: Path) -> Any:
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise _Wrong(f"it cannot be read ({problem}).") from None
    if len(text) > LARGEST_FILE:
        raise _Wrong(f"it has {len(text)} characters; a task may have {LARGEST_FILE}.")
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as problem:
        raise _Wrong(f"it is not YAML: {' '.join(str(problem).split())}.") from None
    except RecursionError:
        raise _Wrong("it is nested too deep to be read.") from None


def _checked(content: Mapping[str, Any]) -> _File:
    try:
        return _File.model_validate(content)
    except ValidationError as invalid:
        first = invalid.errors(include_url=False, include_input=False)[0]
        field = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in first["loc"]).lstrip(".")
        if first["type"] == "extra_forbidden":
            raise _Wrong(f"field {field} is not known; take it out.") from None
        raise _Wrong(f"field {field}: {first['msg']}.") from None


def _task(document: Mapping[str, Any], path: Path | None) -> Task:
    file = _checked(document)
    inputs = _schema("input", file.input)
    if file.output is not None:
        _schema("output", file.output)
    names = [prompt.name for prompt in file.prompts]
    if len(set(names)) < len(names):
        raise _Wrong("field prompts: two versions have one name; give each its own.")
    weights = _weights(file.prompts)
    for number, attached in enumerate(file.attach):
        _need_input(inputs, f"attach[{number}].data", attached.data)
        _need_input(inputs, f"attach[{number}].media_type", attached.media_type)
    if file.page is not None:
        _need_input(inputs, "page.url", file.page.url)
        _need_input(inputs, "page.into", file.page.into)
    return Task(
        name=file.name, description=" ".join(file.description.split()), route=file.route or file.name, inputs=inputs,
        output=None if file.output is None else orjson.dumps(file.output).decode(), parameters=file.parameters,
        repair=file.repair, attachments=tuple(Attachment(a.type, a.data, a.media_type) for a in file.attach),
        page=None if file.page is None else (file.page.url, file.page.into),
        prompts=tuple(
            _prompt(number, prompt, weight, inputs) for number, (prompt, weight) in enumerate(zip(file.prompts, weights, strict=True))
        ),
        document=document, path=path,
    )  # fmt: skip


def _weights(prompts: Sequence[_Prompt]) -> list[int]:
    """The weight of each version, in the smallest numbers that give every share exactly."""
    for number, prompt in enumerate(prompts):
        if prompt.share is not None and prompt.weight is not None:
            raise _Wrong(f"field prompts[{number}] ({prompt.name}) has a share and a weight; keep one of them.")
    shares = {number: Fraction(str(p.share)) / 100 for number, p in enumerate(prompts) if p.share is not None}
    others = {number: 1 if p.weight is None else p.weight for number, p in enumerate(prompts) if p.share is None}
    taken, whole = sum(shares.values()), sum(others.values())
    if taken > 1:
        raise _Wrong(f"field prompts: the shares sum to {float(taken * 100):g} percent; bring them to at most 100.")
    if not shares and not whole:
        raise _Wrong("field prompts: every weight is 0; give one version a weight of at least 1.")
    if taken < 1 and not whole:
        raise _Wrong(
            f"field prompts: the shares sum to {float(taken * 100):g} percent and no version takes the rest; "
            "leave one without a share, or bring them to 100."
        )
    parts = shares | {number: Fraction((1 - taken) * weight, whole or 1) for number, weight in others.items()}
    if not shares:
        return list(others.values())
    scale = lcm(*(part.denominator for part in parts.values()))
    return [int(parts[number] * scale) for number in range(len(prompts))]


def _prompt(number: int, prompt: _Prompt, weight: int, inputs: Schema) -> Prompt:
    def compiled(field: str, source: str) -> Template:
        try:
            return Template(source, inputs.schema)
        except TemplateError as problem:
            raise _Wrong(f"field prompts[{number}].{field} ({prompt.name}): {problem}") from None

    system = None if prompt.system is None else compiled("system", prompt.system)
    return Prompt(prompt.name, weight, system, compiled("user", prompt.user))


def _schema(field: str, schema: dict[str, Any]) -> Schema:
    try:
        return Schema(schema)
    except ValueError as problem:
        raise _Wrong(f"field {field} {problem}.") from None


def _need_input(inputs: Schema, field: str, name: str) -> None:
    known = inputs.schema["properties"]
    if name not in known:
        raise _Wrong(f"field {field} is {name!r}, which is no input; inputs are {', '.join(known)}.")
