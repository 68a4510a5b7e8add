"""Structured output: whether a schema can be followed, whether an answer follows it, and the request that repairs one."""

from __future__ import annotations

from typing import cast

import orjson

from agents.caller_schemas import LONGEST_PROBLEM, Unusable, first_problem, validator_of
from core.errors import ProviderError, error
from core.reply import Reply, text_part
from schemas.events import Error, LlmCall, LlmRequest, Message

#: Objects and lists that the schemas of a request may have together: each takes a fifth of a millisecond to check.
MOST_PLACES = 2_000
#: The most tokens that `repair_request` adds beside the answer itself.
REPAIR_TOKENS = 2_048
REPAIR = (
    "Your last answer does not follow the JSON schema that it has to follow: {problem}\n"
    "Answer again, with JSON that follows the schema and nothing else."
)


def schema_problem(request: LlmRequest) -> Error | None:
    """What is wrong with the schemas of the answer and of the tools, as the error its caller gets; None where nothing is."""
    schemas = [(f"tools[{n}].parameters", tool["parameters"], False) for n, tool in enumerate(request["tools"])]
    if (text := request["parameters"]["response_format"]) is not None:
        schemas.append(("parameters.response_format", text, True))
    left = MOST_PLACES
    for name, text, followed in schemas:
        left -= _places(text)
        if left < 0:
            said = f"the request's schemas have more than {MOST_PLACES:,} objects and lists together; make them shorter"
            return error("caller_invalid_request", f"Field {name} is one schema too many: {said}.")
        try:
            validator_of(text, followed)
        except Unusable as why:
            return error("caller_invalid_request", f"Field {name} is no JSON schema that can be used: {why}")
    return None


def answer_problem(request: LlmRequest, reply: Reply) -> str | None:
    """In which way an answer does not follow the request's schema; None where it does, or none is given.

    An answer that asks for tools is none yet.
    """
    schema = request["parameters"]["response_format"]
    if schema is None or any(part["type"] == "tool_call" for part in reply.output):
        return None
    try:
        answer = orjson.loads(answer_text(reply))
    except orjson.JSONDecodeError as why:
        cut = " because it was cut off; allow more max_output_tokens" if reply.finish_reason == "length" else ""
        return f"it is not JSON ({why}){cut}."
    return first_problem(validator_of(schema, True), answer)


def checked(call: LlmCall, reply: Reply) -> Reply:
    """The reply, where it follows the request's schema; else `ProviderError`, which keeps what the provider reported."""
    problem = answer_problem(call["request"], reply)
    if problem is None:
        return reply
    message = f"The answer of {call['provider']} does not follow the request's response_format: {problem}"
    raise ProviderError(error("provider_schema_mismatch", message), "maybe", reply)


def repair_request(call: LlmCall, answer: str, problem: str) -> LlmCall:
    """The same call with the wrong answer in its conversation, and a sentence on what is wrong with it.

    It reads at most as many tokens more as the answer may have, and `REPAIR_TOKENS`: `core.pricing.upper_bound` takes both
    as `reread_tokens`.
    """
    wrong = [Message(role="assistant", content=[text_part(answer)])] if answer.strip() else []
    told = Message(role="user", content=[text_part(REPAIR.format(problem=problem[: LONGEST_PROBLEM + 100]))])
    messages = [*call["request"]["messages"], *wrong, told]
    return cast(LlmCall, {**call, "request": {**call["request"], "messages": messages}})


def answer_text(reply: Reply) -> str:
    """The texts of an answer as one."""
    return "".join(part["text"] or "" for part in reply.output if part["type"] == "text")


def _places(text: str) -> int:
    """How many objects and lists are in a JSON text; more where its texts have brackets."""
    return text.count("{") + text.count("[")
