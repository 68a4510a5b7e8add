"""The LLM providers that Millstream can call, by name; an SDK is loaded only when its provider is asked for."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from agents.providers.base import Provider
from config.settings import ProviderSettings


def _module(name: str) -> Callable[[ProviderSettings], Provider]:
    def build(settings: ProviderSettings) -> Provider:
        made: Provider = import_module(f"agents.providers.{name}").provider(settings)
        return made

    return build


PROVIDERS: dict[str, Callable[[ProviderSettings], Provider]] = {
    "openai": _module("openai"),
    "anthropic": _module("anthropic"),
    "google": _module("google"),
    "openai-compatible": _module("openai_compatible"),
    "echo": _module("echo"),
}


def provider(settings: ProviderSettings) -> Provider:
    """The provider of these settings, ready to be called.

    KeyError when there is no such kind of provider, `config.settings.SettingsError` when a setting that it cannot do without is
    missing. A missing key is no error here: each call then ends with `provider_auth`.
    """
    return PROVIDERS[settings.kind](settings)
