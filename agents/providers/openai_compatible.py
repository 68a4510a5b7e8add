"""Any server that speaks OpenAI's Chat Completions: vLLM, TGI, llama.cpp, Ollama, Hugging Face's router and others.

The translations are OpenAI's own but for the bound on the answer, which these servers know as `max_tokens`.
"""

from __future__ import annotations

from typing import Any

import openai

from agents.providers import openai as openai_api
from agents.providers.exchange import Api, HttpProvider
from agents.providers.openai import OpenAISdk, key_header, terms_of, translate_response, usage_of
from agents.providers.openai_stream import STREAMING
from config.settings import ProviderSettings, SettingsError
from schemas.events import LlmCall


def translate_request(call: LlmCall) -> dict[str, Any]:
    """The body of `POST /chat/completions` as compatible servers take it."""
    body = openai_api.translate_request(call)
    body["max_tokens"] = body.pop("max_completion_tokens")
    return body


def provider(settings: ProviderSettings) -> HttpProvider:
    """The server at the base URL; the key may be left out. `SettingsError` without a base URL."""
    if not settings.base_url:
        raise SettingsError(
            f"The provider {settings.name} needs the address of its server; set MILLSTREAM_OPENAI_COMPATIBLE_BASE_URL, "
            "such as http://127.0.0.1:8000/v1."
        )
    api = Api(
        translate_request, translate_response, usage_of, terms_of, STREAMING, key_header,
        lambda s: OpenAISdk(s.base_url), (openai.APIError,),
    )  # fmt: skip
    return HttpProvider(settings, api, key_needed=False)


__all__ = ["provider", "terms_of", "translate_request", "translate_response", "usage_of"]
