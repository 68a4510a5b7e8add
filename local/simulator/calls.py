"""What a call asks and what it gets, in words that all the providers share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Json = dict[str, Any]
Finish = Literal["stop", "length", "tool", "refused"]


class Tokens(NamedTuple):
    """Tokens by class; no token is in two classes."""

    input_uncached: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    input_audio: int = 0
    output_text: int = 0
    reasoning: int = 0
    output_audio: int = 0

    @property
    def input_total(self) -> int:
        """All that was read, cached or not."""
        return sum(self[:5])

    @property
    def output_total(self) -> int:
        """All that was made, seen or not."""
        return sum(self[5:])


NO_TOKENS = Tokens()


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the caller offers, with the JSON schema of its arguments."""

    name: str
    schema: Json


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request: its texts without directives, the directives' keys, and what form the answer must have.

    `tool` is the tool to call, `schema` the JSON schema of a structured answer; at most `max_tokens` may be made.
    `media_tokens` are those of images and files, `audio_tokens` those of audio. The answer is `streamed` where the request asks for it; `stream_usage` where its stream shall tell the usage (OpenAI).
    """

    model: str
    text: str
    asked: Json = field(default_factory=dict)
    max_tokens: int | None = None
    tool: Tool | None = None
    schema: Json | None = None
    media_tokens: int = 0
    audio_tokens: int = 0
    streamed: bool = False
    stream_usage: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model says: a text, or the arguments of a call of `tool`."""

    text: str
    finish: Finish
    tokens: Tokens
    tool: Tool | None = None
    arguments: Json = field(default_factory=dict)
    usage_shown: bool = True


@dataclass(frozen=True, slots=True)
class Wait:
    """How long an error asks its client to wait, in the forms that were asked for; seconds but `ms`."""

    seconds: float | None = None
    ms: float | None = None
    date: float | None = None

    @property
    def shortest(self) -> float | None:
        """The wait in seconds, the most exact form first; None where no wait is asked."""
        if self.ms is not None:
            return self.ms / 1_000
        return self.seconds if self.seconds is not None else self.date


NO_WAIT = Wait()


class Refused(Exception):
    """The provider refuses the request: `status` is its HTTP status, `code` and `param` what OpenAI adds."""

    def __init__(self, status: int, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param


def chosen(tools: list[Tool], name: str | None, after_result: bool, *, must: bool) -> Tool | None:
    """The tool a model would call: the named one, else the first, unless it may answer and has a result already."""
    named = next((tool for tool in tools if tool.name == name), None) if name else None
    if named or not tools or (after_result and not must):
        return named
    return tools[0]
