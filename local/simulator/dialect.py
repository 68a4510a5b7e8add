"""What tells one provider's HTTP API from another's."""

from __future__ import annotations

import random
import string
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from local.simulator.calls import Answer, Json, Prompt, Refused, Wait
from local.simulator.directives import split

_ALPHABET = string.ascii_letters + string.digits
_random = random.Random()


class Dialect(Protocol):
    """One endpoint of one provider; pure but for the ids and times it makes up."""

    @property
    def provider(self) -> str:
        """The provider's name in the account and in the price list."""
        ...

    @property
    def unreported(self) -> frozenset[str]:
        """The token classes that this API has no field for."""
        ...

    def authenticate(self, headers: Mapping[str, str], query: Mapping[str, str]) -> None:
        """`Refused` with 401 when the key is missing or bad."""
        ...

    def read(self, headers: Mapping[str, str], body: Json, model: str | None) -> Prompt:
        """The prompt in a request's body, and in its path, which may name the model; `Refused` when it is wrong."""
        ...

    def answer(self, prompt: Prompt, answer: Answer) -> Json:
        """The body of an answer."""
        ...

    def nothing(self, prompt: Prompt) -> Json:
        """The body of an answer with nothing in it, which used no tokens."""
        ...

    def failure(self, refused: Refused, wait: Wait, request_id: str) -> Json:
        """The body of an HTTP error."""
        ...

    def injected(self, status: int, prompt: Prompt, wait: Wait) -> Refused:
        """What the provider says when it answers this prompt with this status."""
        ...

    def too_long(self, read: int, most: int) -> Refused:
        """What the provider says of a prompt of `read` tokens to a model whose context has `most`."""
        ...

    def headers(self, request_id: str, latency_ms: float) -> dict[str, str]:
        """The headers that the provider adds to whatever it answers."""
        ...

    def request_id(self) -> str:
        """A new id for a request, in the provider's form."""
        ...

    def models(self) -> Json:
        """The body of the list of models."""
        ...


def letters(count: int) -> str:
    """Random letters and digits."""
    return "".join(_random.choices(_ALPHABET, k=count))


def hexadecimal(count: int) -> str:
    """Random hexadecimal digits."""
    return f"{_random.getrandbits(4 * count):0{count}x}"


def bearer(headers: Mapping[str, str]) -> str:
    """The key of `Authorization: Bearer`, or nothing."""
    scheme, _, key = headers.get("Authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def content_texts(content: Any, kinds: Iterable[str]) -> list[str]:
    """The texts of a message's content, which is a string or a list of parts with a type and a `text`."""
    if isinstance(content, str):
        return [content]
    return [part["text"] for part in content or () if part.get("type") in kinds]


def prompt_text(texts: Iterable[str]) -> tuple[str, Json]:
    """The texts of all messages as one, without their directives, and the directives' keys."""
    return split("\n".join(texts))


def whole_number(body: Json, *names: str) -> int | None:
    """The first of these fields that is set; `Refused` when it is no whole number above 0."""
    for name in names:
        if (value := body.get(name)) is not None:
            if type(value) is not int or value < 1:
                message = (
                    f"Invalid '{name}': integer below minimum value. Expected a value >= 1, but got {value!r} instead."
                )
                raise Refused(400, message, code="integer_below_min_value", param=name)
            return value
    return None
