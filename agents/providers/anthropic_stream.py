"""Messages as a stream (https://docs.anthropic.com/en/docs/build-with-claude/streaming)."""

from __future__ import annotations

from typing import Any

import orjson

from agents.providers.base import fields
from agents.providers.streamed import Streaming, parsed

#: What brings something of the message; pings, and whatever events the API may add, only keep the connection open.
ADVANCING = ("content_block_start", "content_block_delta", "content_block_stop", "message_delta", "message_stop")


class EventAssembler:
    """Puts the events of a stream together into a `message`; see `agents.providers.streamed.Assembler`.

    What was read is told at the start, what was written only at the end, so the output's count is left out until then.
    """

    def __init__(self) -> None:
        self.complete = False
        self.counted = False
        self.advanced = False
        self._message: dict[str, Any] = {}
        self._blocks: dict[int, dict[str, Any]] = {}
        self._pieces: dict[int, list[str]] = {}

    def feed(self, data: str) -> str | None:
        """The text of one event."""
        event = parsed(data)
        self.advanced = event["type"] in ADVANCING
        match event["type"]:
            case "message_start":
                self._message = event["message"]
            case "content_block_start":
                self._blocks[event["index"]] = event["content_block"]
                self._pieces[event["index"]] = []
                return event["content_block"].get("text") or None
            case "content_block_delta":
                return self._add(event["index"], event["delta"])
            case "message_delta":
                # A count that is null is not told again.
                told = {name: value for name, value in fields(event.get("usage")).items() if value is not None}
                usage = fields(self._message.get("usage")) | told
                self._message |= event["delta"] | ({"usage": usage} if usage else {})
                self.counted = "output_tokens" in told
            case "message_stop":
                self.complete = self._message.get("stop_reason") is not None
        return None

    def _add(self, index: int, delta: dict[str, Any]) -> str | None:
        if delta["type"] == "text_delta":
            self._pieces[index].append(delta["text"])
            return str(delta["text"])
        if delta["type"] == "input_json_delta":
            self._pieces[index].append(delta["partial_json"])
            return ""
        return None

    def reported(self) -> dict[str, Any]:
        """Id, model and usage."""
        usage = self._message.get("usage")
        if self.counted or not isinstance(usage, dict):
            return self._message
        read = {name: value for name, value in usage.items() if not name.startswith("output_tokens")}
        return self._message | {"usage": read}

    def body(self) -> dict[str, Any]:
        """The `message`."""
        return self._message | {"content": [self._block(index) for index in sorted(self._blocks)]}

    def _block(self, index: int) -> dict[str, Any]:
        block, added = self._blocks[index], "".join(self._pieces[index])
        if block["type"] == "text":
            return block | {"text": f"{block.get('text') or ''}{added}"}
        if block["type"] == "tool_use" and added:
            return block | {"input": orjson.loads(added)}
        return block


STREAMING = Streaming({"stream": True}, EventAssembler)
