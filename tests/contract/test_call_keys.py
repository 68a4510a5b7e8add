"""A key of its own for every call: sent by the real SDKs, over shared connections, and in no message."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from agents.providers.base import Provider
from config.settings import Key, ProviderSettings
from core.errors import ProviderError
from tests.contract.calling import ATTEMPT, PATHS, every_provider, everything, llm_call, run
from tests.serving import Handler, Server, served

OWN = "sk-of-the-settings-0123456789"
CARRIERS = {
    "openai": "Authorization", "openai-compatible": "Authorization", "anthropic": "X-Api-Key", "google": "x-goog-api-key",
}  # fmt: skip


class Repeating(Server):
    """A server that refuses every call with an error that repeats the call's headers, and keeps those headers."""

    def __init__(self) -> None:
        super().__init__(_Handler)
        self.calls: list[dict[str, str]] = []
        self.connections: set[Any] = set()


class _Handler(Handler):
    server: Repeating

    def do_POST(self) -> None:
        self.body()
        self.server.calls.append({name.lower(): value for name, value in self.headers.items()})
        self.server.connections.add(self.client_address)
        self.answer(401, json.dumps({"error": {"message": f"Refused: {list(self.headers.values())}"}}).encode())


@pytest.fixture
def server() -> Iterator[Repeating]:
    """A server that repeats headers."""
    yield from served(Repeating())


def settings_of(name: str, server: Repeating, key: str | None = OWN) -> ProviderSettings:
    """This provider at the server that repeats headers."""
    return ProviderSettings(name, key, server.url + PATHS[name], "KEY_SETTING")


async def refusal(made: Provider, name: str, key: Key | None, attempt: str = ATTEMPT) -> ProviderError:
    """The failure that a call with this key ends with."""
    with pytest.raises(ProviderError) as failed:
        await made.call(llm_call(name), attempt, 20, key)
    return failed.value


@every_provider
def test_every_call_carries_its_own_key_and_no_other(server: Repeating, name: str) -> None:
    """Of many calls at once through one provider, each carries its key, in the one header that its provider reads."""
    keys = {f"attempt-{number}": Key(f"planted-{number}-{number}", f"credential c{number}") for number in range(40)}

    async def all_at_once(made: Provider) -> list[ProviderError]:
        return await asyncio.gather(*(refusal(made, name, key, attempt) for attempt, key in keys.items()))

    failures = run(settings_of(name, server), all_at_once)
    carrier = CARRIERS[name].lower()
    sent = {call["x-client-request-id"]: call[carrier].removeprefix("Bearer ") for call in server.calls}
    assert sent == {attempt: key.secret for attempt, key in keys.items()}
    for call in server.calls:
        assert OWN not in str(call)
        assert {"authorization", "x-api-key", "x-goog-api-key"} & call.keys() == {carrier}
    for key, failure in zip(keys.values(), failures, strict=True):
        assert key.name in failure.error["message"]
        assert key.secret not in everything(failure)


@every_provider
def test_keys_share_the_connections_and_none_stays(server: Repeating, name: str) -> None:
    """Calls with other keys reuse the connection, and the next call without one has the key of the settings again."""

    async def in_turn(made: Provider) -> ProviderError:
        for number in range(5):
            await refusal(made, name, Key(f"planted-{number}", f"credential c{number}"))
        return await refusal(made, name, None)

    last = run(settings_of(name, server), in_turn)
    assert len(server.connections) == 1
    assert server.calls[-1][CARRIERS[name].lower()].removeprefix("Bearer ") == OWN
    assert "KEY_SETTING" in last.error["message"]
    assert OWN not in everything(last)


@every_provider
def test_a_key_of_the_call_is_enough(server: Repeating, name: str) -> None:
    """Where the settings have no key, or one that no header carries, a call with a key of its own is made all the same."""
    for key in (None, "ключ"):
        run(settings_of(name, server, key), lambda made: refusal(made, name, Key("planted", "credential c1")))
        assert server.calls.pop()[CARRIERS[name].lower()].removeprefix("Bearer ") == "planted"


@every_provider
def test_a_key_that_cannot_be_sent_is_named_by_its_credential(server: Repeating, name: str) -> None:
    """A key that no HTTP header carries ends the call before it is made, and the message says which credential to mend."""
    failure = run(
        settings_of(name, server), lambda made: refusal(made, name, Key("two words", "credential c1 (…ords)"))
    )
    assert "credential c1 (…ords)" in failure.error["message"]
    assert "two words" not in everything(failure)
    assert server.calls == []


def test_the_account_of_the_environment_goes_with_its_own_key_only(
    server: Repeating, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenAI's organization and project are sent with the key of the settings, and never with another's."""
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-the-platform")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-of-the-platform")

    async def both(made: Provider) -> None:
        await refusal(made, "openai", None)
        await refusal(made, "openai", Key("planted", "credential c1"))

    run(settings_of("openai", server), both)
    own, other = server.calls
    assert (own["openai-organization"], own["openai-project"]) == ("org-of-the-platform", "proj-of-the-platform")
    assert not {"openai-organization", "openai-project"} & other.keys()
