"""Directives: read out of a message's text, checked, and counted where they hold for the first calls only."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any

from local.simulator.calls import NO_WAIT, Json, Prompt, Refused, Tokens, Wait

OPENING, CLOSING = "[[sim ", "]]"
FAULTS = ("garbage", "truncated", "reset", "hang", "empty_choices", "error_in_200", "refusal", "off_schema")
TOKEN_KEYS = {
    "input": "input_uncached", "cached": "cache_read", "cache_write_5m": "cache_write_5m",
    "cache_write_1h": "cache_write_1h", "input_audio": "input_audio", "output": "output_text",
    "reasoning": "reasoning", "output_audio": "output_audio",
}  # fmt: skip
WAITS = ("retry_after", "retry_after_ms", "retry_after_date")
KEYS = frozenset(
    {
        "latency_ms",
        "status",
        "times",
        "key",
        "fault",
        "usage",
        "missing_usage",
        "text",
        "tool_call",
        "stream",
        "context_tokens",
        *WAITS,
    }
)
SPOILING = frozenset({"status", "fault", "stream", "times", "key", *WAITS})
MOST_KEYS = 1_000_000
_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class Pace:
    """How a stream goes: its waits, and before which piece, from 0, it breaks and how; None for never."""

    first_token_ms: float = 0
    pace_ms: float = 0
    stall_at: int | None = None
    stall_seconds: float = 0
    keep_alive_ms: float = 0
    cut_at: int | None = None
    malformed_at: int | None = None
    error_at: int | None = None
    no_end: bool = False


STEADY = Pace()
PLACES = ("stall_at", "cut_at", "malformed_at", "error_at")
DURATIONS = ("first_token_ms", "pace_ms", "stall_seconds", "keep_alive_ms")


@dataclass(frozen=True, slots=True)
class Directive:
    """What to do with one call; the default is an ordinary answer."""

    latency_ms: float | None = None
    status: int | None = None
    wait: Wait = NO_WAIT
    fault: str | None = None
    usage: dict[str, int] = field(default_factory=dict)
    missing_usage: bool = False
    text: str | None = None
    tool_call: Json | None = None
    pace: Pace = STEADY
    context_tokens: int | None = None


ORDINARY = Directive()


def split(text: str) -> tuple[str, Json]:
    """The text without its directives, and their keys, the later before the earlier; `Refused` when one is no JSON object."""
    if OPENING not in text:
        return text, {}
    visible, asked = [], Json()
    while (start := text.find(OPENING)) >= 0:
        visible.append(text[:start])
        try:
            value, end = _DECODER.raw_decode(text, start + len(OPENING))
        except ValueError as error:
            raise Refused(400, f"The simulator's directive is no JSON: {error}; write [[sim {{...}}]].") from None
        if not isinstance(value, dict) or not text.startswith(CLOSING, end):
            raise Refused(400, f"The simulator's directive {text[start:end][:100]!r} must be [[sim {{...}}]].")
        asked |= value
        text = text[end + len(CLOSING) :]
    return "".join([*visible, text]).strip(), asked


class Directives:
    """Turns keys into directives, knowing how often each `key` was seen and what holds for a whole provider."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}
        self._by_provider: dict[str, Json] = {}

    def forget_counts(self) -> None:
        """Start every count of `times` again."""
        self._seen.clear()

    def hold(self, provider: str, asked: Json) -> None:
        """Apply the keys to all calls of a provider from now on; `Refused` when they are wrong."""
        _checked(asked)
        self._by_provider[provider] = asked

    def release(self) -> None:
        """Apply nothing to whole providers any more."""
        self._by_provider.clear()

    def held(self, provider: str) -> Directive:
        """What holds for all calls of a provider."""
        asked = self._by_provider.get(provider)
        return _checked(asked) if asked else ORDINARY

    def of(self, provider: str, prompt: Prompt) -> Directive:
        """The directive for this call, which is counted; `Refused` when its keys are wrong."""
        asked = prompt.asked
        if held := self._by_provider.get(provider):
            own = asked.keys() - SPOILING if held.keys() & SPOILING else asked.keys()
            asked = {key: asked[key] for key in own} | held
        if not asked:
            return ORDINARY
        directive = _checked(asked)
        times = asked.get("times")
        if times is None or not self._over(_key(asked, prompt), times):
            return directive
        faulty = directive.status is not None or directive.fault is not None or directive.pace != STEADY
        latency = directive.latency_ms if faulty else None
        return replace(directive, latency_ms=latency, status=None, wait=NO_WAIT, fault=None, pace=STEADY)

    def _over(self, key: str, times: int) -> bool:
        seen = self._seen.get(key, 0) + 1
        if key not in self._seen and len(self._seen) >= MOST_KEYS:
            del self._seen[next(iter(self._seen))]
        self._seen[key] = seen
        return seen > times


def _key(asked: Json, prompt: Prompt) -> str:
    return str(asked["key"]) if "key" in asked else blake2b(prompt.text.encode(errors="replace")).hexdigest()


def _checked(asked: Json) -> Directive:
    if unknown := asked.keys() - KEYS:
        raise Refused(400, f"The simulator knows no directive {sorted(unknown)}; the keys are {sorted(KEYS)}.")
    waits = {key: _number(key, asked.get(key)) for key in WAITS}
    wait = Wait(waits["retry_after"], waits["retry_after_ms"], waits["retry_after_date"])
    status, fault, text = asked.get("status"), asked.get("fault"), asked.get("text")
    if status is None and any(key in asked for key in WAITS):
        status = 429
    if status == 429 and not any(key in asked for key in WAITS):
        wait = Wait(seconds=1)
    if status is not None and (type(status) is not int or not 400 <= status <= 599):
        raise Refused(400, f"The simulator's status is {status!r}; it must be 400 to 599.")
    if fault is not None and fault not in FAULTS:
        raise Refused(400, f"The simulator knows no fault {fault!r}; it must be one of {', '.join(FAULTS)}.")
    if text is not None and not isinstance(text, str):
        raise Refused(400, f"The simulator's text is {text!r}; it must be a string.")
    tool_call = asked.get("tool_call")
    if tool_call is not None and not (isinstance(tool_call, dict) and isinstance(tool_call.get("name"), str)):
        raise Refused(
            400, f'The simulator\'s tool_call is {tool_call!r}; it must be {{"name": ..., "arguments": {{...}}}}.'
        )
    times = asked.get("times")
    if times is not None and (type(times) is not int or times < 0):
        raise Refused(400, f"The simulator's times is {times!r}; it must be a whole number.")
    context = asked.get("context_tokens")
    if context is not None and (type(context) is not int or context < 0):
        raise Refused(400, f"The simulator's context_tokens is {context!r}; it must be a whole number.")
    return Directive(
        context_tokens=context,
        latency_ms=_number("latency_ms", asked.get("latency_ms")),
        status=status,
        wait=wait,
        fault=fault,
        usage=_usage(asked.get("usage") or {}),
        missing_usage=bool(asked.get("missing_usage")),
        text=text,
        tool_call=tool_call,
        pace=_pace(asked.get("stream") or {}),
    )


def _number(key: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise Refused(400, f"The simulator's {key} is {value!r}; it must be a number of at least 0.")
    return value


def _pace(asked: Any) -> Pace:
    if not isinstance(asked, dict) or asked.keys() - {*PLACES, *DURATIONS, "no_end"}:
        known = sorted((*PLACES, *DURATIONS, "no_end"))
        raise Refused(400, f"The simulator's stream is {asked!r}; it must have keys of {known}.")
    for key in PLACES:
        if (place := asked.get(key)) is not None and (type(place) is not int or place < 0):
            raise Refused(400, f"The simulator's stream.{key} is {place!r}; it must be a whole number.")
    durations = {key: _number(f"stream.{key}", asked.get(key)) or 0 for key in DURATIONS}
    return Pace(**{key: asked.get(key) for key in PLACES}, **durations, no_end=bool(asked.get("no_end")))  # type: ignore[arg-type]


def _usage(usage: Any) -> dict[str, int]:
    if not isinstance(usage, dict) or usage.keys() - TOKEN_KEYS.keys():
        raise Refused(400, f"The simulator's usage is {usage!r}; it must have keys of {sorted(TOKEN_KEYS)}.")
    for key, value in usage.items():
        if type(value) is not int or value < 0:
            raise Refused(400, f"The simulator's usage.{key} is {value!r}; it must be a whole number.")
    return {TOKEN_KEYS[key]: value for key, value in usage.items()}


def with_usage(tokens: Tokens, directive: Directive) -> Tokens:
    """The tokens with the classes that a directive sets."""
    return tokens._replace(**directive.usage) if directive.usage else tokens
