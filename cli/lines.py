"""Requests and answers as JSON lines."""

from __future__ import annotations

import json
import os
import sys
import time
import uuid
from pathlib import Path
from typing import Any, cast

from cli.errors import CommandError
from schemas.events import LlmRequest
from schemas.jsonform import InvalidJson, from_json

INPUT_HELP = "a task's inputs: a file with a JSON object, - for standard input, or the object itself"


def new_id() -> str:
    """A UUID version 7: unique, and in the order of time (RFC 9562, section 5.7)."""
    stamp = time.time_ns() // 1_000_000
    value = (stamp << 80) | int.from_bytes(os.urandom(10), "big")
    value = (value & ~(0xF << 76)) | (0x7 << 76)
    value = (value & ~(0x3 << 62)) | (0x2 << 62)
    return str(uuid.UUID(int=value))


def request_of(line: Any, defaults: dict[str, Any], where: str) -> LlmRequest:
    """The request in a JSON object, with what it leaves out filled in; `CommandError` names `where` and what is wrong.

    `"prompt": "…"` is short for one user message; `defaults` are fields for lines that do not have them.
    """
    if not isinstance(line, dict):
        raise CommandError(f'{where} is not a JSON object; write one request a line, such as {{"prompt": "Hello"}}.')
    fields = {"request_id": new_id(), "created_at": time.time_ns() // 1_000, **defaults, **line}
    if "prompt" in fields:
        if "messages" in fields:
            raise CommandError(f"{where} has both prompt and messages; keep one of them.")
        fields["messages"] = [{"role": "user", "content": [{"type": "text", "text": fields.pop("prompt")}]}]
    try:
        return cast(LlmRequest, from_json("LlmRequest", fields))
    except InvalidJson as problem:
        raise CommandError(f"{where}: {problem}") from None


def parse(text: str, where: str) -> Any:
    """The JSON value in a line; `CommandError` names `where` it stands."""
    try:
        return json.loads(text)
    except ValueError as problem:
        raise CommandError(f"{where} is not JSON ({problem}); write one request a line.") from None


def input_text(argument: str) -> str:
    """The JSON object in text that `--input` stands for; `CommandError` when it cannot be read or is none."""
    if argument.lstrip().startswith("{"):
        text, where = argument, "--input"
    elif argument == "-":
        text, where = sys.stdin.read(), "Standard input"
    else:
        where = f"File {argument}"
        try:
            text = Path(argument).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as problem:
            raise CommandError(f"{where} cannot be read ({problem}); give another path, - or a JSON object.") from None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise CommandError(f"{where} is not JSON ({problem}); write a task's inputs as one JSON object.") from None
    if not isinstance(found, dict):
        raise CommandError(f"{where} is no JSON object; write a task's inputs as one.")
    return text


def text_of(answer: dict[str, Any]) -> str:
    """The text of an answer's parts."""
    return "".join(part["text"] or "" for part in answer["output"])


def usd(nano: int | None) -> str:
    """An amount of nano-USD for people, exact: 1234567 → 0.001234567 USD."""
    if nano is None:
        return "unknown"
    whole, rest = divmod(nano, 1_000_000_000)
    digits = f"{rest:09d}".rstrip("0")
    return f"{whole}.{digits.ljust(2, '0')} USD"
