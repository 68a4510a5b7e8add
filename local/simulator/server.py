"""The simulator's HTTP server: takes calls, carries out replies, and accounts for what reached the socket."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from urllib.parse import unquote

import orjson
from aiohttp import web

from local.simulator.account import Account, Call
from local.simulator.anthropic_messages import AnthropicMessages
from local.simulator.calls import NO_WAIT, Refused
from local.simulator.dialect import Dialect
from local.simulator.directives import Directives
from local.simulator.gemini import Gemini
from local.simulator.openai_chat import OpenAIChat
from local.simulator.openai_responses import OpenAIResponses
from local.simulator.replies import GARBAGE, Reply, reply

JSON = "application/json"
SMALL = 65_536  #: Bytes that fit into the socket's own buffer, so that nothing is left with us.
CHAT, RESPONSES, MESSAGES, GEMINI = OpenAIChat(), OpenAIResponses(), AnthropicMessages(), Gemini()
CALLS: dict[str, Dialect] = {
    "/openai/v1/chat/completions": CHAT,
    "/openai/v1/responses": RESPONSES,
    "/anthropic/v1/messages": MESSAGES,
}
MODEL_LISTS: dict[str, Dialect] = {
    "/openai/v1/models": CHAT,
    "/anthropic/v1/models": MESSAGES,
    "/google/v1beta/models": GEMINI,
    "/google/v1/models": GEMINI,
}
GENERATE = re.compile(r"/google/v1(?:beta)?/(?:models|tunedModels)/([^/]+)")
PROVIDERS = ("openai", "anthropic", "google")


class Simulator:
    """Answers all requests; `latency_ms` is the wait before an answer whose request asks for no other."""

    def __init__(self, latency_ms: float) -> None:
        self._latency_ms = latency_ms
        self._account = Account(PROVIDERS)
        self._directives = Directives()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """The answer to one HTTP request."""
        # Not request.path: a model's name may hold an encoded slash.
        path = request.rel_url.raw_path
        if request.method == "POST":
            if (dialect := CALLS.get(path)) is not None:
                return await self._call(request, dialect, None)
            if (named := GENERATE.fullmatch(path)) is not None:
                return await self._call(request, GEMINI, unquote(named[1]))
        elif request.method == "GET" and (dialect := MODEL_LISTS.get(path)) is not None:
            return await self._model_list(request, dialect)
        if path.startswith("/_sim/"):
            return await self._control(request, path)
        dialect = next((d for d in (GEMINI, MESSAGES) if path.startswith(f"/{d.provider}/")), CHAT)
        return _refusal(dialect, Refused(404, f"Invalid URL ({request.method} {path})"))

    async def _call(self, request: web.BaseRequest, dialect: Dialect, path_model: str | None) -> web.StreamResponse:
        raw = await request.content.read()
        account = self._account
        call = account.begin(dialect.provider, request.headers.get("X-Client-Request-Id"))
        try:
            decided = reply(
                dialect, self._directives, request.headers, request.query, raw, path_model, self._latency_ms
            )
            call.model = decided.model
            if decided.latency_ms:
                await asyncio.sleep(decided.latency_ms / 1_000)
            return await _carry_out(request, decided, call)
        finally:
            account.end(call)

    async def _model_list(self, request: web.BaseRequest, dialect: Dialect) -> web.Response:
        """The provider's models, in the manner that is held for its calls."""
        held = self._directives.held(dialect.provider)
        await asyncio.sleep((held.latency_ms or 0) / 1_000)
        if held.fault == "hang":
            await asyncio.get_running_loop().create_future()
        if held.fault == "reset":
            _reset(request)
            return web.Response()
        try:
            dialect.authenticate(request.headers, request.query)
            if held.status is not None:
                raise Refused(held.status, "The simulator was told to fail.")
        except Refused as refused:
            return _refusal(dialect, refused)
        headers = dialect.headers(dialect.request_id(), 0)
        body = GARBAGE if held.fault == "garbage" else orjson.dumps(dialect.models())
        return web.Response(body=body, headers=headers, content_type=JSON)

    async def _control(self, request: web.BaseRequest, path: str) -> web.Response:
        match request.method, path:
            case "GET", "/_sim/ledger":
                return web.Response(body=self._account.totals(), content_type=JSON)
            case "GET", "/_sim/calls":
                since = request.query.get("since", "0")
                if not since.isdecimal():
                    return _complaint(400, f"since is {since!r}; it must be the sequence number of a call, or 0.")
                return web.Response(body=self._account.records(int(since)), content_type=JSON)
            case "POST", "/_sim/reset":
                self._account = Account(PROVIDERS)
                self._directives.forget_counts()
            case "POST", "/_sim/faults":
                return self._hold(await request.content.read())
            case "DELETE", "/_sim/faults":
                self._directives.release()
            case _:
                return _complaint(404, f"There is no {request.method} {path}; see the package's docstring.")
        return web.Response(body=b"{}", content_type=JSON)

    def _hold(self, raw: bytes) -> web.Response:
        try:
            asked = orjson.loads(raw)
            provider = asked.pop("provider")
            if provider not in PROVIDERS:
                return _complaint(400, f"The provider is {provider!r}; it must be one of {', '.join(PROVIDERS)}.")
            self._directives.hold(provider, asked)
        except Refused as refused:
            return _complaint(400, refused.message)
        except (ValueError, LookupError, AttributeError, TypeError):
            return _complaint(400, 'The body must be a JSON object such as {"provider": "google", "fault": "hang"}.')
        return web.Response(body=b"{}", content_type=JSON)


async def _carry_out(request: web.BaseRequest, decided: Reply, call: Call) -> web.StreamResponse:
    """Send the reply; the call keeps counting as cut off until its last byte is with the socket."""
    if decided.manner == "hang":
        await asyncio.get_running_loop().create_future()
    if decided.manner == "reset":
        _reset(request)
        return web.Response()
    if decided.stream is not None:
        return await decided.stream.play(request, decided.headers, call)
    call.status = decided.status
    if decided.manner == "truncated":
        response: web.StreamResponse = web.StreamResponse(status=decided.status, headers=decided.headers)
        response.content_type, response.content_length = JSON, len(decided.body)
        await response.prepare(request)
        await response.write(decided.body[: len(decided.body) // 2])
        if request.transport is not None:
            request.transport.close()
    else:
        response = web.Response(status=decided.status, headers=decided.headers, body=decided.body, content_type=JSON)
        # What aiohttp does with a returned response, done here to see that it worked.
        await response.prepare(request)
        await response.write_eof()
        if len(decided.body) > SMALL and (transport := request.transport) is not None:
            while transport.get_write_buffer_size():  # noqa: ASYNC110 - a transport tells nobody when it is empty
                await asyncio.sleep(0.002)
    call.outcome, call.tokens, call.cost_nano_usd = decided.outcome, decided.tokens, decided.cost_nano_usd
    return response


def _reset(request: web.BaseRequest) -> None:
    if (transport := request.transport) is not None:
        # No lingering makes the kernel send RST instead of FIN (socket(7), SO_LINGER).
        if (connection := transport.get_extra_info("socket")) is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()


def _refusal(dialect: Dialect, refused: Refused) -> web.Response:
    request_id = dialect.request_id()
    body = orjson.dumps(dialect.failure(refused, NO_WAIT, request_id))
    return web.Response(status=refused.status, body=body, headers=dialect.headers(request_id, 0), content_type=JSON)


def _complaint(status: int, sentence: str) -> web.Response:
    return web.Response(status=status, body=orjson.dumps({"error": sentence}), content_type=JSON)
