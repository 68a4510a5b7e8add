"""Play an answer as a stream: at the pace and with the fault that its directive asks for, accounting for what was made."""

from __future__ import annotations

import asyncio

from aiohttp import web

from local.simulator import sse_anthropic, sse_gemini, sse_openai
from local.simulator.account import Call
from local.simulator.calls import Answer, Json, Prompt
from local.simulator.directives import Pace
from local.simulator.prices import cost_nano_usd
from local.simulator.sse import Script, made_by

SCRIPTS = {"openai": sse_openai.script, "anthropic": sse_anthropic.script, "google": sse_gemini.script}
MALFORMED = b'data: {"id": "broken", "choices": [{\n\n'


class Cut(Exception):
    """The connection is to be closed in mid-stream."""


class Stream:
    """One answer to be streamed; `broken` is the event that says a stream broke off with an error."""

    def __init__(self, provider: str, prompt: Prompt, answer: Answer, body: Json, pace: Pace, broken: bytes) -> None:
        self._provider = provider
        self._model = prompt.model
        self._tokens = answer.tokens
        self._script: Script = SCRIPTS[provider](prompt, answer, body)
        self._pace = pace
        self._broken = broken
        self._made = 0

    async def play(self, request: web.BaseRequest, headers: dict[str, str], call: Call) -> web.StreamResponse:
        """Send it; the call keeps counting as cut off until the last byte is with the socket, and pays for what was made."""
        response = web.StreamResponse(headers=headers)
        response.content_type = "text/event-stream"
        await response.prepare(request)
        call.status = 200
        try:
            await self._write(response, call)
            await response.write_eof()
            if call.outcome == "cut_off":
                call.outcome = "answered"
        except Cut:
            if request.transport is not None:
                request.transport.close()
        finally:
            call.tokens = made_by(self._tokens, self._made, len(self._script.pieces))
            call.cost_nano_usd = cost_nano_usd(self._provider, self._model, call.tokens)
        return response

    async def _write(self, response: web.StreamResponse, call: Call) -> None:
        script, pace = self._script, self._pace
        await _wait(pace.first_token_ms)
        await response.write(script.opening)
        for number, piece in enumerate(script.pieces):
            if number == pace.cut_at:
                raise Cut
            if number == pace.stall_at:
                await self._stall(response)
            if number == pace.malformed_at:
                call.outcome = "garbled"
                await response.write(MALFORMED)
            if number == pace.error_at:
                call.outcome = "error"
                await response.write(self._broken)
                return
            self._made = number + 1
            await response.write(piece)
            await _wait(pace.pace_ms)
        await response.write(script.closing)
        if pace.no_end:
            call.outcome = "garbled"
        else:
            await response.write(script.end)

    async def _stall(self, response: web.StreamResponse) -> None:
        left, pause = self._pace.stall_seconds * 1_000, self._pace.keep_alive_ms
        while pause and left > pause:
            await _wait(pause)
            await response.write(self._script.keep_alive)
            left -= pause
        await _wait(left)


async def _wait(milliseconds: float) -> None:
    if milliseconds:
        await asyncio.sleep(milliseconds / 1_000)
