"""What a provider is to the complete stage, and the parts that the translations into every provider's terms share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import orjson

from config.settings import Key
from core.errors import ProviderError, error
from core.json_depth import DEEPEST_OF_REQUESTS, deeper_than
from core.reply import Reply
from schemas.events import ContentPart, LlmCall, Message, Tokens


class Listener(Protocol):
    """Hears of a streamed answer while it arrives; neither method may wait."""

    def delta(self, text: str) -> None:
        """A piece of the answer has come: its text, empty for a piece of a tool call."""
        ...

    def gave_up(self, used: Reply | None) -> None:
        """The call was cancelled; `used` holds what the provider had told of its usage by then."""
        ...


class Provider(Protocol):
    """A provider that answers calls; as many at once as the lane allows."""

    async def call(
        self, call: LlmCall, attempt_id: str, timeout: float, key: Key | None = None, listener: Listener | None = None
    ) -> Reply:
        """The provider's answer, at most `timeout` seconds from now; `ProviderError` when there is none.

        `attempt_id` is sent along, so that the provider's log and ours can be laid side by side. `key` is this call's alone;
        None takes the one of the settings. With a `listener` the answer is streamed to it, and is whole all the same when it
        is returned. Cancelling the task gives the call up and is not turned into an error.
        """
        ...

    async def close(self) -> None:
        """Close the connections to the provider; no call may follow."""
        ...


def system_text(messages: list[Message]) -> str | None:
    """All system messages as one text with a blank line between them, for providers that take it beside the turns."""
    found = [part["text"] or "" for message in messages if message["role"] == "system" for part in message["content"]]
    return "\n\n".join(found) if found else None


def answer_schema(call: LlmCall) -> Any:
    """The JSON schema that the answer must follow, or None; `caller_invalid_request` when it is not JSON."""
    text = call["request"]["parameters"]["response_format"]
    return None if text is None else _json("parameters.response_format", text)


def with_options(body: dict[str, Any], call: LlmCall, reserved: frozenset[str]) -> dict[str, Any]:
    """The body with the caller's provider options merged into it, objects field by field; the options win.

    `reserved` holds the names that stand for a field of the request itself or would make a call dearer than what was
    reserved for it, without underscores and in small letters; `caller_invalid_request` when an option has one of them.
    """
    options = {
        name: _json(f"provider_options[{name!r}]", text) for name, text in call["request"]["provider_options"].items()
    }
    _refuse_reserved(options, reserved | TOOL_OPTIONS, "provider_options")
    _merge(body, options)
    return body


#: More than any call has; what it costs, at any price, is still a number that an event can hold.
MOST_TOKENS = 10**12
#: What would replace the request's own tools, or add some of the provider's, which read the web at a price that nothing bounds.
TOOL_OPTIONS = frozenset({
    "tools", "toolchoice", "toolconfig", "functions", "functioncall", "websearchoptions", "mcpservers", "container", "plugins",
})  # fmt: skip
#: Where Gemini's requests have their parameters.
CONFIG = "generationConfig"
#: What a call may ask for without becoming dearer than its reservation, by the option's name.
NOT_DEARER = {
    "servicetier": ("auto", "default", "flex", "standard", "standard_only"),
    "speed": ("standard",),
    "inferencegeo": ("global",),
}


def _refuse_reserved(options: Mapping[str, Any], reserved: frozenset[str], path: str) -> None:
    for name, value in options.items():
        simple = name.replace("_", "").lower()
        if simple in NOT_DEARER and value not in NOT_DEARER[simple]:
            raise _refused(
                f"{path} may set {name!r} to one of {', '.join(NOT_DEARER[simple])}; anything else has other prices."
            )
        if simple in reserved:
            raise _refused(
                f"{path} may not set {name!r}; use the request's own fields (model, messages, tools, parameters)."
            )
        if simple == CONFIG.lower():
            # Anything else would stand in place of the bounds that the request has there.
            if name != CONFIG or not isinstance(value, dict):
                raise _refused(f"{path} may set {CONFIG!r}, spelled so, to an object; {name!r} is none.")
            _refuse_reserved(value, reserved, f"{path}.{name}")


def _merge(body: dict[str, Any], options: Mapping[str, Any]) -> None:
    for name, value in options.items():
        if isinstance(value, dict) and isinstance(body.get(name), dict):
            _merge(body[name], value)
        else:
            body[name] = value


def _json(field: str, text: str) -> Any:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as why:
        raise _refused(f"Field {field} is not JSON ({why}); send one JSON value in text.") from None
    if deeper_than(DEEPEST_OF_REQUESTS, value):
        raise _refused(f"Field {field} is nested deeper than {DEEPEST_OF_REQUESTS} levels; make it flatter.")
    return value


def _refused(message: str) -> ProviderError:
    return ProviderError(error("caller_invalid_request", message), "no")


def tool_call_part(call_id: object, name: object, arguments: object) -> ContentPart:
    """A content part that asks for a tool to be called; TypeError for a name or arguments of another type than theirs."""
    if not isinstance(name, str):
        raise TypeError(f"the name of a tool is of type {type(name).__name__}")
    return ContentPart(
        type="tool_call", text=None, media_type=None, url=None, data=None,
        tool_call_id=identifier(call_id), tool_name=name, tool_arguments=arguments_text(arguments),
    )  # fmt: skip


def arguments_text(arguments: object) -> str | None:
    """The arguments of a call to a tool as the text of a JSON object, which some servers send as the object; else TypeError."""
    if arguments is None or isinstance(arguments, str):
        return arguments
    if isinstance(arguments, dict):
        return orjson.dumps(arguments).decode()
    raise TypeError(f"the arguments of a tool are of type {type(arguments).__name__}")


def content_text(content: object) -> str:
    """The text of an answer, which some servers send as a list of parts, thoughts among them; TypeError for anything else."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(content_text(part["text"]) for part in content if part["type"] == "text")
    raise TypeError(f"the text is of type {type(content).__name__}")


def identifier(value: object) -> str | None:
    """An id or a model's name as text; None for what is neither text nor a number."""
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else None


def count(value: object) -> int | None:
    """A number of tokens as reported; None for whatever is not a whole number from 0 on, or more than there can be."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS else None


def fields(value: object) -> dict[str, Any]:
    """A JSON object's fields; none for whatever is not an object."""
    return value if isinstance(value, dict) else {}


def less(total: int | None, *parts: int | None) -> int | None:
    """What remains of a total without the parts that were reported, at least 0; None without a total."""
    return None if total is None else max(0, total - sum(part or 0 for part in parts))


def usage_json(usage: object) -> str | None:
    """The usage as the provider reported it, as compact JSON; None where it reported none."""
    return None if usage is None else orjson.dumps(usage).decode()


def used_only(tokens: Tokens, usage: object, model: object, response_id: object, terms: str | None) -> Reply | None:
    """A reply that holds nothing but what a failed call used; None where the provider reported no tokens."""
    if all(reported is None for reported in tokens.values()):
        return None
    return Reply((), "other", identifier(model), identifier(response_id), tokens, usage_json(usage), terms)


def is_empty(call: LlmCall, reply: Reply) -> bool:
    """Whether an answer holds neither text nor a tool's call, and nothing explains it: its bound, a filter, or a stop text."""
    stop_texts = call["request"]["parameters"]["stop"]
    if reply.finish_reason in ("length", "content_filter") or (stop_texts and reply.finish_reason == "stop"):
        return False
    return not any(part["type"] != "text" or part["text"] for part in reply.output)


def terms_text(*special: str | None) -> str | None:
    """What of a call has prices of its own, in words; None where nothing has."""
    return ", ".join(each for each in special if each) or None


def unlike(name: str, value: object, *standard: str) -> str | None:
    """`name` and a value that was reported and is none of the standard ones; None for a standard one."""
    return f"{name} {value}" if value and value not in standard else None
