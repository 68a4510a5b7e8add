"""Reads just enough of a ClickHouse statement to serve it over HTTP: kind, format, insert data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

_TOKEN = re.compile(
    rb"""
    (?P<skip> \s+ | --[^\n]*(?:\n|$) | \#[!\ ][^\n]*(?:\n|$) | /\*.*?\*/ )
  | (?P<quoted> '(?:[^'\\]|\\.|'')*' | `(?:[^`\\]|\\.)*` | "(?:[^"\\]|\\.)*" )
  | (?P<word> [A-Za-z_][A-Za-z0-9_]* )
  | (?P<open> [(\[{] )
  | (?P<close> [)\]}] )
  | (?P<other> . )
    """,
    re.VERBOSE | re.DOTALL,
)
_FORMAT_AT_END = re.compile(rb"\bFORMAT\s+([A-Za-z][A-Za-z0-9]*)\s*(?:SETTINGS\s[^)]*)?;?\s*$", re.IGNORECASE)
_SETTING_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*\Z")
_READERS = {"SELECT", "WITH", "SHOW", "DESCRIBE", "DESC", "EXISTS", "EXPLAIN", "CHECK"}


class InsertParts(NamedTuple):
    """What an `INSERT` says up to its `SETTINGS` and `FORMAT`, these settings, the format's name, and the data that follows it."""

    statement: str
    settings: str
    format: str
    data: memoryview


def split_insert(text: bytes) -> InsertParts | None:
    """Parts `INSERT … FORMAT name <data>`; None for any other, also `INSERT … VALUES` and `… SELECT`.

    Data begins after the format's name, spaces on its line, and one line break:
    https://clickhouse.com/docs/sql-reference/statements/insert-into
    """
    depth = 0
    first = True
    position = 0
    settings: int | None = None
    while match := _TOKEN.match(text, position):
        position = match.end()
        if match["open"]:
            depth += 1
        elif match["close"]:
            depth -= 1
        elif match["word"] and depth == 0:
            word = match["word"].upper()
            if (first and word != b"INSERT") or word in (b"VALUES", b"SELECT", b"WITH", b"INFILE"):
                return None
            if word == b"SETTINGS" and settings is None:
                settings = match.start()
            if word == b"FORMAT" and (name := re.compile(rb"\s+([A-Za-z][A-Za-z0-9]*)").match(text, position)):
                if name[1].upper() == b"VALUES":
                    return None
                data = re.compile(rb"[ \t\f]*\r?\n?").match(text, name.end())
                start = data.end() if data else name.end()
                end = match.start() if settings is None else settings
                said = text[:end].decode(), text[end : match.start()].decode()
                return InsertParts(*said, name[1].decode(), memoryview(text)[start:])
        if not match["skip"]:
            first = False
    return None


def reads(text: bytes) -> bool:
    """True for a statement that has a result, if only an empty one: SELECT, SHOW, DESCRIBE, EXPLAIN …"""
    for match in _TOKEN.finditer(text):
        if match["word"]:
            return match["word"].decode().upper() in _READERS
        if not match["skip"] and not match["open"]:
            return False
    return False


def output_format(text: bytes, default: str) -> str:
    """The format that the statement's last clause names, else `default`."""
    match = _FORMAT_AT_END.search(text[-2000:])
    return match[1].decode() if match else default


def with_output_format(text: bytes, name: str) -> bytes:
    """The statement with its last `FORMAT` clause, if any, naming `name` instead."""
    match = _FORMAT_AT_END.search(text)
    body = text[: match.start()] if match else text.rstrip().rstrip(b";")
    return body + b"\nFORMAT " + name.encode()


def quote(value: str) -> str:
    """`value` as a ClickHouse string literal."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def set_statement(settings: Mapping[str, str]) -> str:
    """One `SET` statement for `settings`, whose values are given as in a URL; ValueError for a bad name."""
    for name in settings:
        if not _SETTING_NAME.match(name):
            raise ValueError(f"Code: 115. DB::Exception: {name!r} is no name of a setting. (UNKNOWN_SETTING)")
    return "SET " + ", ".join(f"{name} = {quote(value)}" for name, value in settings.items())
