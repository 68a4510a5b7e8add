"""Which key a call is made with: a tenant's own before the platform's, several by weight, a limited one resting."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from config.credentials import Credential, open_key
from config.key_encryption import EncryptionKeys
from config.settings import Key


@dataclass(frozen=True, slots=True)
class Picked:
    """A key that a call may be made with; `credential_id` is None for the one of the settings.

    `rests_until` is in the future, in microseconds since 1970, when every key there is rests and this one the shortest.
    `remote` says that opening it asks a service, and may take as long as that.
    """

    credential_id: str | None
    owner: Literal["tenant", "platform"]
    rests_until: int
    remote: bool
    _open: Callable[[], Key | None] = field(repr=False)

    def open(self) -> Key | None:
        """The key for one call, decrypted now and kept by nobody else; None stands for the one of the settings.

        `config.secrets.CredentialError` when it cannot be decrypted.
        """
        return self._open()


class Keyring:
    """The credentials that calls are made with, encrypted as they are stored; safe to use from several threads."""

    def __init__(self, keys: EncryptionKeys, credentials: Iterable[Credential] = ()) -> None:
        self._keys = keys
        self._rests: dict[str, int] = {}
        self._held: dict[tuple[str, str | None], tuple[Credential, ...]] = {}
        self.load(credentials)

    def load(self, credentials: Iterable[Credential]) -> None:
        """Take these in place of those before, all at once; what rests goes on resting."""
        held: defaultdict[tuple[str, str | None], list[Credential]] = defaultdict(list)
        for one in credentials:
            # A tenant's key that is disabled still says that the platform's is not for its calls.
            if one.revoked_at is None and (one.enabled or one.tenant is not None):
                held[one.provider, one.tenant].append(one)
        ids = {one.credential_id for of_owner in held.values() for one in of_owner}
        for gone in self._rests.keys() - ids:
            self._rests.pop(gone, None)
        self._held = {
            owner: tuple(one for one in of_owner if one.enabled) or tuple(of_owner) for owner, of_owner in held.items()
        }

    def has_own(self, provider: str, tenant: str) -> bool:
        """Whether a tenant's calls are made with keys of its own."""
        return (provider, tenant) in self._held

    def pick(
        self,
        provider: str,
        tenant: str,
        now: int,
        random: float,
        out_until: Callable[[str], int | None] = lambda _: None,
    ) -> Picked:
        """The key for a call of a tenant; `random` is from 0 to below 1, `out_until` knows of reasons to rest beside limits.

        A tenant that has keys of its own for the provider is never given the platform's, not even while all of its own rest, are
        disabled or cannot be opened.
        """
        held = self._held
        owner: Literal["tenant", "platform"] = "tenant"
        if not (ours := held.get((provider, tenant), ())):
            owner, ours = "platform", held.get((provider, None), ())
        if not ours:
            return Picked(None, "platform", 0, False, lambda: None)
        rests = {one.credential_id: self._rests_until(one.credential_id, out_until) for one in ours}
        ready = [one for one in ours if rests[one.credential_id] <= now]
        chosen = _by_weight(ready, random) if ready else min(ours, key=lambda one: rests[one.credential_id])
        keys, until = self._keys, rests[chosen.credential_id]
        remote = chosen.sealed is not None and not chosen.sealed.kek_id.startswith("local:")
        return Picked(chosen.credential_id, owner, until, remote, lambda: open_key(keys, chosen))

    def platform_keys(self, provider: str) -> list[Callable[[], str]]:
        """What opens the secret of each key that the platform has stored for a provider; errors as for `Picked.open`."""
        return [partial(_secret, self._keys, one) for one in self._held.get((provider, None), ())]

    def rest(self, credential_id: str | None, until: int) -> None:
        """Let a limited credential rest until a time in microseconds since 1970; None, the settings' key, never rests."""
        if credential_id is not None:
            self._rests[credential_id] = max(until, self._rests.get(credential_id, 0))

    def _rests_until(self, credential_id: str, out_until: Callable[[str], int | None]) -> int:
        return max(self._rests.get(credential_id, 0), out_until(credential_id) or 0)


def _secret(keys: EncryptionKeys, credential: Credential) -> str:
    return open_key(keys, credential).secret


def _by_weight(ready: list[Credential], random: float) -> Credential:
    left = random * sum(one.weight for one in ready)
    for one in ready:
        left -= one.weight
        if left < 0:
            return one
    return ready[-1]
