"""Chat Completions as a stream (https://platform.openai.com/docs/api-reference/chat-streaming)."""

from __future__ import annotations

from typing import Any

from agents.providers.base import arguments_text, content_text
from agents.providers.streamed import Streaming, parsed

DONE = "[DONE]"


class ChunkAssembler:
    """Puts `chat.completion.chunk`s together into a `chat.completion`; see `agents.providers.streamed.Assembler`.

    Usage comes in a chunk of its own at the end. A server that tells it on the way has it counted once the finish reason is there.
    """

    def __init__(self) -> None:
        self.complete = False
        self.counted = False
        self.advanced = False
        self._shared: dict[str, Any] = {}
        self._choice: dict[str, Any] = {"finish_reason": None}
        self._said: dict[str, list[str]] = {"content": [], "refusal": []}
        self._tool_calls: dict[int, dict[str, Any]] = {}

    def feed(self, data: str) -> str | None:
        """The text of one chunk."""
        self.advanced = data == DONE
        if self.advanced:
            self.complete = self._choice["finish_reason"] is not None
            return None
        chunk = parsed(data)
        self._shared |= {name: value for name, value in chunk.items() if name != "choices" and value is not None}
        added = [self._add(choice) for choice in chunk.get("choices") or () if choice.get("index", 0) == 0]
        self.counted = (bool(chunk.get("usage")) and self._choice["finish_reason"] is not None) or self.counted
        self.advanced |= bool(chunk.get("usage"))
        return next((text for text in added if text is not None), None)

    def _add(self, choice: dict[str, Any]) -> str | None:
        self._choice |= {name: choice[name] for name in ("finish_reason", "error") if choice.get(name)}
        delta = choice.get("delta") or {}
        # Thinking has other names with every server.
        brought = any(value for name, value in delta.items() if name != "role")
        self.advanced |= brought or choice.get("finish_reason") is not None
        pieces = {name: content_text(delta[name]) for name in self._said if delta.get(name)}
        for name, piece in pieces.items():
            self._said[name].append(piece)
        for piece in delta.get("tool_calls") or ():
            self._add_tool_call(piece)
        if pieces.get("content"):
            return pieces["content"]
        return "" if delta.get("tool_calls") else None

    def _add_tool_call(self, piece: dict[str, Any]) -> None:
        calls = self._tool_calls
        # Some servers leave out the index; an id then begins another call.
        index = piece.get("index")
        if index is None:
            index = len(calls) if piece.get("id") or not calls else len(calls) - 1
        call = calls.setdefault(index, {"id": None, "type": "function", "function": {"name": "", "arguments": ""}})
        function = piece.get("function") or {}
        call["id"] = piece.get("id") or call["id"]
        call["function"]["name"] = function.get("name") or call["function"]["name"]
        call["function"]["arguments"] += arguments_text(function.get("arguments")) or ""

    def reported(self) -> dict[str, Any]:
        """Id, model, service tier and usage."""
        return self._shared

    def body(self) -> dict[str, Any]:
        """The `chat.completion`."""
        message: dict[str, Any] = {name: "".join(said) or None for name, said in self._said.items()}
        if self._tool_calls:
            message["tool_calls"] = [self._tool_calls[index] for index in sorted(self._tool_calls)]
        return self._shared | {"choices": [self._choice | {"index": 0, "message": message}]}


STREAMING = Streaming({"stream": True, "stream_options": {"include_usage": True}}, ChunkAssembler)
