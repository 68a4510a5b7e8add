"""Which key a call gets: by owner, weight and rest, and never another tenant's."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.credentials import Credential
from config.key_encryption import EncryptionKeys, LocalKey
from config.keyring import Keyring
from config.secrets import Binding, CredentialError, seal
from config.settings import Key

NOW = 1_795_258_680_000_000
KEYS = EncryptionKeys((LocalKey("k1", bytes(32)),))


def credential(name: str, tenant: str | None = None, weight: int = 1, provider: str = "openai") -> Credential:
    """A stored credential whose secret says which one it is."""
    sealed = seal(KEYS, Binding(name, provider, tenant, "abcd", 1), secret_of(name))
    return Credential(name, provider, tenant, "", "abcd", weight, True, NOW, None, None, 1, sealed)


def secret_of(name: str) -> str:
    """The secret of the credential with this id."""
    return f"planted-{name}"


def test_a_tenants_own_key_comes_first() -> None:
    """A tenant with a key is given its own, any other the platform's, and each is marked so."""
    ring = Keyring(KEYS, [credential("c1"), credential("c2", "acme"), credential("c3", "acme", provider="google")])
    own, platforms = ring.pick("openai", "acme", NOW, 0.9), ring.pick("openai", "globex", NOW, 0.9)
    assert (own.credential_id, own.owner, own.open()) == (
        "c2",
        "tenant",
        Key("planted-c2", "the credential c2 (…abcd)"),
    )
    assert (platforms.credential_id, platforms.owner) == ("c1", "platform")
    assert ring.pick("google", "acme", NOW, 0.9).credential_id == "c3"
    assert [ring.has_own("openai", tenant) for tenant in ("acme", "globex")] == [True, False]


def test_without_a_key_the_settings_serve() -> None:
    """Where the database has none, the call is made with the key of the settings, as the platform's."""
    picked = Keyring(KEYS, [credential("c1", "globex")]).pick("openai", "acme", NOW, 0.5)
    assert (picked.credential_id, picked.owner, picked.open(), picked.rests_until) == (None, "platform", None, 0)


def test_several_keys_are_taken_by_weight() -> None:
    """Over evenly spread numbers each key is taken as often as its weight says, exactly."""
    ring = Keyring(KEYS, [credential("c1", weight=1), credential("c2", weight=3), credential("c3", weight=6)])
    taken = Counter(ring.pick("openai", "acme", NOW, number / 1_000).credential_id for number in range(1_000))
    assert taken == {"c1": 100, "c2": 300, "c3": 600}


def test_a_limited_key_rests_until_its_time() -> None:
    """It is passed over to the microsecond, its rest is never shortened, and lasts through a new snapshot."""
    held = [credential("c1"), credential("c2")]
    ring = Keyring(KEYS, held)
    ring.rest("c1", NOW + 10)
    ring.rest("c1", NOW + 5)
    ring.rest(None, NOW + 10)
    ring.load(held)
    assert {ring.pick("openai", "acme", NOW + 9, number / 9).credential_id for number in range(9)} == {"c2"}
    assert {ring.pick("openai", "acme", NOW + 10, number / 9).credential_id for number in range(9)} == {"c1", "c2"}


def test_when_all_rest_the_first_to_be_back_is_named() -> None:
    """The caller is told until when, and a tenant whose keys rest is not given the platform's."""
    ring = Keyring(KEYS, [credential("c1", "acme"), credential("c2", "acme"), credential("c3")])
    ring.rest("c1", NOW + 20)
    ring.rest("c2", NOW + 10)
    picked = ring.pick("openai", "acme", NOW, 0.0)
    assert (picked.credential_id, picked.owner, picked.rests_until) == ("c2", "tenant", NOW + 10)


def test_an_open_breaker_lets_a_key_rest_too() -> None:
    """What else says that a key is out counts like a limit, the later of the two."""
    ring = Keyring(KEYS, [credential("c1"), credential("c2")])
    ring.rest("c2", NOW + 10)
    picked = ring.pick("openai", "acme", NOW, 0.9, {"c1": NOW + 30, "c2": NOW + 20}.get)
    assert (picked.credential_id, picked.rests_until) == ("c2", NOW + 20)
    assert ring.pick("openai", "acme", NOW + 10, 0.0, {"c1": NOW + 30}.get).credential_id == "c2"


def test_a_disabled_key_of_the_platform_is_not_picked() -> None:
    """A credential of the platform that was disabled or revoked is as if it were not there."""
    ring = Keyring(KEYS, [replace(credential("c1"), enabled=False), gone("c2")])
    assert ring.pick("openai", "acme", NOW, 0.0).credential_id is None


def test_a_tenant_whose_keys_are_all_disabled_is_not_given_the_platforms() -> None:
    """Its calls say which key to enable or to revoke; one that is enabled is taken instead, and after revoking the platform's."""
    off, platforms = replace(credential("c1", "acme"), enabled=False), credential("c2")
    picked = Keyring(KEYS, [off, platforms]).pick("openai", "acme", NOW, 0.0)
    assert (picked.credential_id, picked.owner) == ("c1", "tenant")
    with pytest.raises(CredentialError, match="Credential c1 is disabled; enable it"):
        picked.open()
    ring = Keyring(KEYS, [off, credential("c3", "acme"), platforms])
    assert {ring.pick("openai", "acme", NOW, number / 9).credential_id for number in range(9)} == {"c3"}
    assert Keyring(KEYS, [gone("c1", "acme"), platforms]).pick("openai", "acme", NOW, 0.0).credential_id == "c2"


def gone(name: str, tenant: str | None = None) -> Credential:
    """A credential that was revoked."""
    return replace(credential(name, tenant), enabled=False, revoked_at=NOW, sealed=None)


def test_a_key_is_decrypted_at_each_use() -> None:
    """A key that cannot be decrypted is picked all the same and says so when it is opened: nothing was opened before."""
    ring = Keyring(EncryptionKeys(()), [credential("c1")])
    picked = ring.pick("openai", "acme", NOW, 0.0)
    with pytest.raises(CredentialError, match="Credential c1 is encrypted under"):
        picked.open()


TENANTS = st.sampled_from(["acme", "Acme", "acme ", "globex", "", "%", "*", "null", "None", "platform"])
HELD = st.lists(
    st.tuples(st.none() | TENANTS, st.sampled_from(["openai", "google"]), st.integers(1, 5), st.booleans()), max_size=8
)


@given(
    held=HELD, rests=st.lists(st.integers(0, 7)), tenant=TENANTS, provider=st.sampled_from(["openai", "google"]),
    random=st.floats(0, 1, exclude_max=True),
)  # fmt: skip
def test_no_tenant_is_given_anothers_key(
    held: list[tuple[str | None, str, int, bool]], rests: list[int], tenant: str, provider: str, random: float
) -> None:
    """Whatever is stored, disabled or resting: the key is the tenant's own, the platform's if it has none, and opens as that."""
    made = {
        f"c{number}": replace(credential(f"c{number}", owner, weight, its), enabled=enabled)
        for number, (owner, its, weight, enabled) in enumerate(held)
    }
    ring = Keyring(KEYS, made.values())
    for number in rests:
        ring.rest(f"c{number}", NOW + 1 + number)
    picked = ring.pick(provider, tenant, NOW, random)
    mine = [one for one in made.values() if one.tenant == tenant and one.provider == provider]
    own = {one.credential_id for one in mine if one.enabled} or {one.credential_id for one in mine}
    platforms = {
        one.credential_id for one in made.values() if one.tenant is None and one.provider == provider and one.enabled
    }
    assert picked.owner == ("tenant" if own else "platform")
    assert picked.credential_id in (own or platforms or {None})
    assert "planted" not in repr(picked)
    if picked.credential_id is not None and not made[picked.credential_id].enabled:
        with pytest.raises(CredentialError):
            picked.open()
        return
    key = picked.open()
    assert (key.secret if key else None) == (secret_of(picked.credential_id) if picked.credential_id else None)
    assert "planted" not in repr(key)
