"""Ask ClickHouse: rows for our own reports, or bytes in any of its formats for a person at a shell."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum
from typing import Any, cast
from urllib.parse import urlsplit

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import Error as ClickHouseError
from clickhouse_connect.driver.exceptions import OperationalError

from config.settings import Settings
from sinks.writer import connect

CHUNK_BYTES = 1 << 16

# The driver logs what it raises; whoever asks here prints one sentence instead.
logging.getLogger("clickhouse_connect").addHandler(logging.NullHandler())


class _Code(IntEnum):
    # https://github.com/ClickHouse/ClickHouse/blob/master/src/Common/ErrorCodes.cpp
    UNKNOWN_TABLE = 60
    UNKNOWN_DATABASE = 81
    READONLY = 164


#: The server sends nothing before the statement has run to its end, so that a failure is an error and no cut-off answer.
_WHOLE = {"wait_end_of_query": 1}
#: 2 refuses every change but that of a setting: https://clickhouse.com/docs/operations/settings/permissions-for-queries
_READ_ONLY = {"readonly": 2}


class QueryFailed(Exception):
    """ClickHouse did not answer, or not as asked: one sentence, without the query and without a password."""


class Store:
    """Questions to the ClickHouse of the settings, on one connection that opens with the first of them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: Client | None = None

    def rows(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """The rows of a `SELECT`, by column name; `{name:Type}` in the SQL takes its value from `parameters`.

        Raises `QueryFailed`.
        """
        with self._failures():
            return list(self._opened().query(sql, parameters=dict(parameters or {}), settings=_WHOLE).named_results())

    def output(self, sql: str, default_format: str, *, write: bool = False) -> Iterator[bytes]:
        """What ClickHouse answers to one statement, in the format that it names itself or in `default_format`.

        Only reading is allowed unless `write`. Raises `QueryFailed`.
        """
        with self._failures():
            client = self._opened()
            settings: dict[str, Any] = dict(_WHOLE)
            if (profile := client.server_settings.get("readonly")) is None or profile.value == "0":
                # A user whose profile is read-only already may set nothing.
                settings |= {"output_format_json_quote_64bit_integers": 0} | ({} if write else _READ_ONLY)
            # As the default, so that a FORMAT clause in the statement still decides.
            default = {"X-ClickHouse-Format": default_format}
            stream: Any = client.raw_stream(sql, settings=settings, transport_settings=default)
            try:
                while chunk := stream.read(CHUNK_BYTES):
                    yield cast(bytes, chunk)
            finally:
                stream.close()

    def close(self) -> None:
        """Close the connection; the next question opens another."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _opened(self) -> Client:
        if self._client is None:
            self._client = connect(self._settings)
        return self._client

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except ClickHouseError as error:
            self.close()
            raise QueryFailed(self._sentence(error)) from None

    def _sentence(self, error: ClickHouseError) -> str:
        code = getattr(error, "code", None)
        if code is None and isinstance(error, OperationalError):
            address = _without_user(self._settings.clickhouse_url)
            if "timed out" in str(error).lower():
                return f"ClickHouse at {address} did not answer in time; ask for less, or see whether it is overloaded."
            return (
                f"ClickHouse does not answer at {address}; "
                "start one with `millstream up`, or set MILLSTREAM_CLICKHOUSE_URL."
            )
        said = reason(str(error))
        match code:
            case _Code.UNKNOWN_DATABASE:
                return f"ClickHouse refuses the query: {said}; run `millstream migrate`."
            case _Code.UNKNOWN_TABLE:
                return f"ClickHouse refuses the query: {said}; `SHOW TABLES` names those there are."
            case _Code.READONLY:
                return f"ClickHouse refuses the query: {said}; add --write to change data."
        return f"ClickHouse refuses the query: {said}."


def reason(said: str) -> str:
    """What ClickHouse complains of, on one line: without its codes, its version and the query it repeats.

    `… Code: 47. DB::Exception: Unknown identifier x. In scope SELECT x. (UNKNOWN_IDENTIFIER) (version 26.9)` comes to
    `Unknown identifier x (UNKNOWN_IDENTIFIER)`.
    """
    text = " ".join(said.split())
    text = text.rpartition("DB::Exception: ")[2]
    name = (re.findall(r"\(([A-Z][A-Z0-9_]{3,})\)", text) or [""])[-1]
    text = re.split(
        r"\. \([A-Z][A-Z0-9_]{3,}\)|\. Expected one of: |: In scope |\. In scope | In scope | \(version | \(for url ",
        text,
    )[0]
    text = text.strip(" .")[:300]
    return f"{text} ({name})" if name else text


def _without_user(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
