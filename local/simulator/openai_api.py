"""What all of OpenAI's endpoints share: keys, headers, errors, models (https://platform.openai.com/docs/guides/error-codes)."""

from __future__ import annotations

from collections.abc import Mapping

from local.simulator.calls import Json, Prompt, Refused, Tool, Wait
from local.simulator.dialect import bearer, hexadecimal

ORGANIZATION = "org-simulator"
MODELS = {
    "gpt-5": 1754425777, "gpt-5-mini": 1754425928, "gpt-5-nano": 1754426384, "gpt-4.1": 1744316542,
    "gpt-4o": 1715367049, "gpt-4o-mini": 1721172741,
}  # fmt: skip
NO_KEY = (
    "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth (i.e. "
    "Authorization: Bearer YOUR_KEY), or as the password field (with blank username) if you're accessing the API from your "
    "browser and are prompted for a username and password. You can obtain an API key from "
    "https://platform.openai.com/account/api-keys."
)
BAD_KEY = (
    "Incorrect API key provided: {key}. You can find your API key at https://platform.openai.com/account/api-keys."
)
MESSAGES = {
    400: "We could not parse the JSON body of your request.",
    403: "Country, region, or territory not supported",
    404: "The model `{model}` does not exist or you do not have access to it.",
    429: "Rate limit reached for {model} in organization {organization} on requests per min (RPM): Limit 500, Used 500, "
    "Requested 1. Please try again in {wait}. Visit https://platform.openai.com/account/rate-limits to learn more.",
    500: "The server had an error while processing your request. Sorry about that!",
    502: "Bad gateway.",
    503: "The engine is currently overloaded, please try again later",
    504: "The server took too long to answer.",
}
CODES = {
    401: "invalid_api_key", 403: "unsupported_country_region_territory", 404: "model_not_found",
    429: "rate_limit_exceeded",
}  # fmt: skip
TYPES = {403: "request_forbidden", 429: "requests"}


class OpenAI:
    """OpenAI but for what an endpoint takes and gives."""

    provider = "openai"

    def authenticate(self, headers: Mapping[str, str], query: Mapping[str, str]) -> None:
        """`Refused` with 401 when the key is missing or bad."""
        key = bearer(headers)
        if not key:
            raise Refused(401, NO_KEY)
        if key == "bad-key":
            raise Refused(401, BAD_KEY.format(key=key), code="invalid_api_key")

    def failure(self, refused: Refused, wait: Wait, request_id: str) -> Json:
        """`{"error": {"message", "type", "param", "code"}}`."""
        kind = "server_error" if refused.status >= 500 else TYPES.get(refused.status, "invalid_request_error")
        error = {"message": refused.message, "type": kind, "param": refused.param, "code": refused.code}
        return {"error": error}

    def injected(self, status: int, prompt: Prompt, wait: Wait) -> Refused:
        """What OpenAI says with this status."""
        waiting = "1s" if wait.shortest is None else f"{wait.shortest:g}s"
        message = MESSAGES.get(status, "The request failed.")
        if status == 401:
            message = BAD_KEY.format(key="sk-simul*****ator")
        message = message.format(model=prompt.model, organization=ORGANIZATION, wait=waiting)
        return Refused(status, message, code=CODES.get(status), param="model" if status == 404 else None)

    def too_long(self, read: int, most: int) -> Refused:
        """What the provider says of a prompt of `read` tokens to a model whose context has `most`."""
        message = (
            f"This model's maximum context length is {most} tokens. However, your messages resulted in {read} tokens. "
        )
        message += "Please reduce the length of the messages."
        return Refused(400, message, code="context_length_exceeded", param="messages")

    def headers(self, request_id: str, latency_ms: float) -> dict[str, str]:
        """The headers of every answer (https://platform.openai.com/docs/api-reference/debugging-requests)."""
        return {
            "x-request-id": request_id,
            "openai-organization": ORGANIZATION,
            "openai-processing-ms": f"{latency_ms:.0f}",
            "openai-version": "2020-10-01",
        }

    def request_id(self) -> str:
        """`req_` and 32 hexadecimal digits."""
        return f"req_{hexadecimal(32)}"

    def models(self) -> Json:
        """`GET /models`."""
        data = [{"id": name, "object": "model", "created": at, "owned_by": "system"} for name, at in MODELS.items()]
        return {"object": "list", "data": data}


def model_of(body: Json) -> str:
    """The model asked for; `Refused` when there is none."""
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise Refused(400, "you must provide a model parameter")
    return model


def tools_of(tools: list[Json] | None) -> list[Tool]:
    """The functions on offer, in the form of Chat Completions or of Responses."""
    functions = [tool.get("function", tool) for tool in tools or () if tool.get("type") == "function"]
    return [Tool(function["name"], function.get("parameters") or {"type": "object"}) for function in functions]
