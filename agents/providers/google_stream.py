"""`streamGenerateContent` (https://ai.google.dev/api/generate-content#method:-models.streamgeneratecontent)."""

from __future__ import annotations

from typing import Any

from agents.providers.base import fields
from agents.providers.streamed import Streaming, parsed


class ResponseAssembler:
    """Puts partial `GenerateContentResponse`s together into a whole one; see `agents.providers.streamed.Assembler`.

    The finish reason, or the reason why the prompt was blocked, is the end; each response repeats the usage so far.
    """

    def __init__(self) -> None:
        self.complete = False
        self.counted = False
        self.advanced = False
        self._shared: dict[str, Any] = {}
        self._candidate: dict[str, Any] = {}
        self._parts: list[Any] = []

    def feed(self, data: str) -> str | None:
        """The text of one response."""
        response = parsed(data)
        self._shared |= {name: value for name, value in response.items() if name != "candidates"}
        parts: list[dict[str, Any]] = []
        for candidate in (response.get("candidates") or ())[:1]:
            self._candidate |= {name: value for name, value in candidate.items() if name != "content"}
            parts = list(fields(candidate.get("content")).get("parts") or ())
        self._parts += parts
        brought = any(value for part in parts for name, value in part.items() if name != "thought")
        blocked = fields(self._shared.get("promptFeedback")).get("blockReason")
        self.complete = bool(self._candidate.get("finishReason") or (blocked and not self._candidate))
        self.counted = self.complete and (self.counted or bool(response.get("usageMetadata")))
        self.advanced = brought or self.complete
        said = [part["text"] for part in parts if part.get("text") and not part.get("thought")]
        if said:
            return "".join(said)
        return "" if any("functionCall" in part for part in parts) else None

    def reported(self) -> dict[str, Any]:
        """Id, model, usage and what the candidate says of searches."""
        return self._shared | {"candidates": [self._candidate]}

    def body(self) -> dict[str, Any]:
        """The whole response."""
        if not self._candidate:
            return self._shared
        content = {"content": {"role": "model", "parts": self._parts}} if self._parts else {}
        return self._shared | {"candidates": [self._candidate | content]}


STREAMING = Streaming({}, ResponseAssembler)
