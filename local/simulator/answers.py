"""The answer to a prompt: its text and its tokens, the same for the same model and prompt."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import orjson

from local.simulator.calls import Answer, Finish, Json, Prompt, Refused, Tokens, Tool
from local.simulator.directives import Directive, with_usage
from local.simulator.samples import sample

CHARS_PER_TOKEN = 4
#: JSON that follows none of the schemas that ask for an object.
OFF_SCHEMA = '["not", "what", "was", "asked"]'
FEWEST, MOST = 20, 400
_LOREM = """Lorem ipsum dolor sit amet, consectetur adipiscing elit. Sed do eiusmod tempor incididunt ut labore et dolore
magna aliqua. Ut enim ad minim veniam, quis nostrud exercitation ullamco. Laboris nisi ut aliquip ex ea commodo consequat.
Duis aute irure dolor in reprehenderit in voluptate velit. Esse cillum dolore eu fugiat nulla pariatur. Excepteur sint
occaecat cupidatat non proident. Sunt in culpa qui officia deserunt mollit anim id est laborum. Sed ut perspiciatis unde
omnis iste natus error sit. Nemo enim ipsam voluptatem quia voluptas sit aspernatur. Neque porro quisquam est qui dolorem.
Quis autem vel eum iure reprehenderit qui in ea voluptate. At vero eos et accusamus et iusto odio dignissimos. Nam libero
tempore cum soluta nobis est eligendi optio. Temporibus autem quibusdam et aut officiis debitis. Itaque earum rerum hic
tenetur a sapiente delectus."""
SENTENCES = [f"{sentence.rstrip('.')}." for sentence in " ".join(_LOREM.split()).split(". ")]


def fingerprint(prompt: Prompt) -> int:
    """A number of 64 bits that depends on the model and the prompt only."""
    return int.from_bytes(blake2b(f"{prompt.model}\0{prompt.text}".encode(errors="replace"), digest_size=8).digest())


def counted(text: str) -> int:
    """The tokens of a text, one for every four characters, at least one."""
    return max(1, -(-len(text) // CHARS_PER_TOKEN))


def lorem(seed: int, tokens: int) -> str:
    """Whole sentences that make up at least this many tokens."""
    at, step = seed % len(SENTENCES), 2 * (seed >> 8) % len(SENTENCES) + 1
    parts: list[str] = []
    length = 0
    while length < tokens * CHARS_PER_TOKEN:
        parts.append(SENTENCES[at])
        length += len(SENTENCES[at]) + 1
        at = (at + step) % len(SENTENCES)
    return " ".join(parts)


def answer(prompt: Prompt, directive: Directive, seed: int) -> Answer:
    """What the model says: the directive's tool call or text, a call of the prompt's tool, a value of its schema, or lorem ipsum.

    Never more tokens than the prompt allows, unless the directive sets them; where it would be more, the finish is
    `length`. `Refused` when a schema is none.
    """
    tool, arguments = _tool_call(prompt, directive)
    if tool:
        text, made = "", counted(orjson.dumps(arguments).decode())
    elif directive.text is not None:
        text, made = directive.text, counted(directive.text)
    elif directive.fault == "off_schema":
        text, made = OFF_SCHEMA, counted(OFF_SCHEMA)
    elif prompt.schema is not None:
        text = orjson.dumps(_allowed(prompt.schema)).decode()
        made = counted(text)
    else:
        made = FEWEST + (seed >> 16) % (MOST - FEWEST + 1)
        text = lorem(seed, made)
    finish: Finish = "tool" if tool else "stop"
    if prompt.max_tokens is not None and made > prompt.max_tokens:
        finish, made = "length", prompt.max_tokens
        text = text if directive.text is not None else text[: made * CHARS_PER_TOKEN]
    if directive.fault == "refusal":
        text, tool, finish = "", None, "refused"
    read = counted(prompt.text) + prompt.media_tokens
    tokens = with_usage(Tokens(input_uncached=read, input_audio=prompt.audio_tokens, output_text=made), directive)
    return Answer(text, finish, tokens, tool, arguments, usage_shown=not directive.missing_usage)


def _tool_call(prompt: Prompt, directive: Directive) -> tuple[Tool | None, Json]:
    """The tool to call and its arguments, by the directive or the prompt; None where the model answers with text."""
    if directive.tool_call is not None:
        return Tool(directive.tool_call["name"], {}), directive.tool_call.get("arguments") or {}
    if prompt.tool is None or directive.text is not None:
        return None, {}
    arguments = _allowed(prompt.tool.schema)
    return prompt.tool, arguments if isinstance(arguments, dict) else {}


def _allowed(schema: Json) -> Any:
    try:
        return sample(schema)
    except (TypeError, ValueError, LookupError, AttributeError, RecursionError) as error:
        raise Refused(400, f"The simulator finds no value for the JSON schema: {error!r}") from None
