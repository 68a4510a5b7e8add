"""Serves the chDB engine over ClickHouse's HTTP interface: https://clickhouse.com/docs/interfaces/http"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import tempfile
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import chdb
from aiohttp import web
from chdb.state.sqlitelike import Connection

from local import clickhouse_sql as sql
from local.clickhouse import NAME_HEADER, display_name
from local.clickhouse_coding import decode_body, encode_reply

# URL parameters of the interface itself; every other one is a setting or a param_*.
_NO_SETTINGS = frozenset(
    (
        *("query", "database", "default_format", "query_id", "role", "user", "password", "quota_key"),
        *("session_id", "session_timeout", "session_check", "close_session", "client_protocol_version"),
        *("compress", "decompress", "buffer_size", "wait_end_of_query", "stacktrace"),
    )
)
# https://github.com/ClickHouse/ClickHouse/blob/master/src/Server/HTTP/exceptionCodeToHTTPStatus.cpp
_STATUS_BY_ERROR = (
    (
        re.compile(r"UNKNOWN_(TABLE|FUNCTION|IDENTIFIER|TYPE|STORAGE|DATABASE|SETTING|FORMAT|\w+_FUNCTION)"),
        404,
    ),
    (re.compile(r"CANNOT_PARSE_\w+|CANNOT_COMPILE_REGEXP|BAD_ARGUMENTS|SYNTAX_ERROR|INCORRECT_DATA"), 400),
    (
        re.compile(r"DUPLICATE_COLUMN|ILLEGAL_COLUMN|THERE_IS_NO_COLUMN|TYPE_MISMATCH|VALUE_IS_OUT_OF_\w+"),
        400,
    ),
    (re.compile(r"NOT_IMPLEMENTED"), 501),
)
_SUMMARY = (
    *("read_rows", "read_bytes", "written_rows", "written_bytes"),
    *("total_rows_to_read", "result_rows", "result_bytes"),
)


@dataclass(frozen=True)
class Answer:
    """What a statement gave: its bytes, their format (None: a statement without result) and row counts."""

    body: bytes
    format: str | None
    summary: dict[str, int] = field(default_factory=dict)


class Engine:
    """One chDB engine over the folder `path`; statements run in parallel, each on a connection of its own.

    A connection of its own (0.2 ms) is what keeps one request's settings from the next.
    """

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self._path = str(path)
        self._keeps_engine_up = chdb.connect(self._path)
        row = self._keeps_engine_up.query("SELECT version(), timezone()", "TabSeparated").bytes().decode()
        self.version, self.timezone = row.strip().split("\t")

    def run(self, text: bytes, default_format: str, database: str, settings: Mapping[str, str]) -> Answer:
        """Runs one statement; raises chDB's exception, whose text starts with `Code: N.`, when it fails."""
        connection = chdb.connect(self._path)
        try:
            if database:
                connection.query(f"USE `{database.replace('`', '``')}`")
            if settings:
                connection.query(sql.set_statement(settings))
            if insert := sql.split_insert(text):
                return _insert(connection, insert)
            return _query(connection, text, default_format)
        finally:
            connection.close()

    def close(self) -> None:
        """Shuts the engine down."""
        self._keeps_engine_up.close()


def _insert(connection: Connection, insert: sql.InsertParts) -> Answer:
    # Out of a file, because chDB's stream of an insert (send_insert) ends well when the engine refuses to commit it.
    with tempfile.NamedTemporaryFile(prefix="insert-") as file:
        file.write(insert.data)
        file.flush()
        source = f"FROM INFILE {sql.quote(file.name)} {insert.settings} FORMAT {insert.format}"
        result = connection.query(f"{insert.statement} {source}", "TabSeparated")
    return Answer(b"", None, {"written_rows": result.rows_written(), "written_bytes": result.bytes_written()})


def _query(connection: Connection, text: bytes, default_format: str) -> Answer:
    name = sql.output_format(text, default_format)
    result = connection.query(text.decode(), name)
    body: bytes = result.bytes() or b""
    counts = {
        "read_rows": result.storage_rows_read(),
        "read_bytes": result.storage_bytes_read(),
        "written_rows": result.rows_written(),
        "written_bytes": result.bytes_written(),
        "result_rows": result.rows_read(),
    }
    reads = sql.reads(text)
    if reads and not body and name == "Native":
        body = _empty_native(connection, text)
    return Answer(body, name if body or reads else None, counts)


def _empty_native(connection: Connection, text: bytes) -> bytes:
    """The Native block without rows by which a server names the columns; chDB leaves it out."""
    head = sql.with_output_format(text, "JSONCompactStringsEachRowWithNamesAndTypes")
    lines = (connection.query(head.decode(), "Native").bytes() or b"").splitlines()
    if len(lines) < 2:
        return b""
    names, types = json.loads(lines[0]), json.loads(lines[1])
    block = bytearray(_varint(len(names)) + _varint(0))
    for text_of in (part for pair in zip(names, types, strict=True) for part in pair):
        encoded = text_of.encode()
        block += _varint(len(encoded)) + encoded
    return bytes(block)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _failure(error: Exception, version: str) -> web.Response:
    said = str(error)
    start = said.find("Code: ")
    message = said[start:] if start >= 0 else f"Code: 1002. DB::Exception: {said} (UNKNOWN_EXCEPTION)"
    code = re.match(r"Code: (\d+)", message)
    name = (re.findall(r"\(([A-Z][A-Z0-9_]+)\)", message) or [""])[-1]
    status = next((status for names, status in _STATUS_BY_ERROR if names.fullmatch(name)), 500)
    if "(version" not in message:
        message += f" (version {version})"
    headers = {"X-ClickHouse-Exception-Code": code[1] if code else "1002"}
    return web.Response(status=status, text=message + "\n", headers=headers, charset="utf-8")


class Interface:
    """The HTTP handlers over one `Engine`."""

    def __init__(self, engine: Engine, threads: int = 8) -> None:
        self._engine = engine
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="query")

    async def ping(self, request: web.Request) -> web.Response:
        """`GET /ping`: the server is up."""
        return web.Response(text="Ok.\n", headers={NAME_HEADER: display_name(os.getpid())})

    async def root(self, request: web.Request) -> web.Response:
        """`GET` or `POST /`: runs the statement made of `?query=` and the body."""
        try:
            text, params = await self._statement(request)
            if not text.strip():
                return web.Response(text="Ok.\n")
            loop = asyncio.get_running_loop()
            answer = await loop.run_in_executor(self._threads, self._run, request, text, params)
        except Exception as error:  # whatever failed, the client gets it in ClickHouse's own form
            return _failure(error, self._engine.version)
        return self._reply(request, params, answer)

    async def _statement(self, request: web.Request) -> tuple[bytes, dict[str, str]]:
        params = dict(request.query)
        if params.get("compress") == "1":
            raise ValueError("compress=1 (block-compressed replies) is not served here; use Accept-Encoding.")
        if request.content_type == "multipart/form-data":
            for name, value in (await request.post()).items():
                if not isinstance(value, str):
                    raise ValueError(f"External data ({name}) is not served here; put it into a table.")
                params[name] = value
            body = b""
        else:
            encoding = request.headers.get("Content-Encoding", "").strip().lower()
            body = decode_body(await request.read(), encoding, params.get("decompress") == "1")
        query = params.get("query", "").encode()
        return (query + b"\n" + body if query and body else query or body), params

    def _run(self, request: web.Request, text: bytes, params: dict[str, str]) -> Answer:
        settings = {name: value for name, value in params.items() if name not in _NO_SETTINGS}
        database = request.headers.get("X-ClickHouse-Database") or params.get("database", "")
        default = request.headers.get("X-ClickHouse-Format") or params.get("default_format") or "TabSeparated"
        return self._engine.run(text, default, database, settings)

    def _reply(self, request: web.Request, params: dict[str, str], answer: Answer) -> web.Response:
        headers = {
            "X-ClickHouse-Summary": json.dumps({name: str(answer.summary.get(name, 0)) for name in _SUMMARY}),
            "X-ClickHouse-Query-Id": params.get("query_id") or str(uuid.uuid4()),
            NAME_HEADER: display_name(os.getpid()),
            "X-ClickHouse-Timezone": self._engine.timezone,
        }
        if answer.format:
            headers["X-ClickHouse-Format"] = answer.format
        body = answer.body
        if params.get("enable_http_compression") == "1":
            body, encoding = encode_reply(body, request.headers.get("Accept-Encoding", ""))
            if encoding:
                headers["Content-Encoding"] = encoding
        is_json = (answer.format or "").startswith("JSON")
        headers["Content-Type"] = "application/json" if is_json else "text/plain; charset=UTF-8"
        return web.Response(body=body, headers=headers)


async def serve(path: Path, port: int) -> None:
    """Serves the databases under `path` on 127.0.0.1:`port` until SIGTERM or SIGINT."""
    engine = Engine(path)
    interface = Interface(engine)
    app = web.Application(client_max_size=0)
    app.router.add_get("/ping", interface.ping)
    app.router.add_route("*", "/", interface.root)
    runner = web.AppRunner(
        app,
        access_log=None,
        auto_decompress=False,
        max_line_size=1 << 20,
        max_field_size=1 << 16,
        handle_signals=False,
        shutdown_timeout=5.0,
    )
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=256).start()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    await ended.wait()
    await runner.cleanup()
    engine.close()
