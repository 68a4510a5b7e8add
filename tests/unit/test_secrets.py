"""Envelope encryption: known answers, what a row is bound to, and errors that say what to do and no secret."""

from __future__ import annotations

import base64
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.key_encryption import EncryptionKeys, KeyRefused, LocalKey, encryption_keys, new_local_key
from config.secrets import Binding, CredentialError, Sealed, rewrap, seal, unseal
from config.settings import SettingsError

SECRET = "sk-planted-0123456789-abcd"
KEYS = EncryptionKeys((LocalKey("k1", bytes(range(32))),))
BINDING = Binding("cr-0011223344556677", "openai", "acme", "abcd", 1)

#: Test cases 13 to 16 of "The Galois/Counter Mode of Operation" (McGrew and Viega), those with keys of 256 bits:
#: key, nonce, plaintext, associated data, ciphertext with tag.
_KEY = "feffe9928665731c6d6a8f9467308308" * 2
_TEXT = (
    "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
    "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255"
)
_CIPHER = (
    "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
    "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad"
)
KNOWN_ANSWERS = [
    ("00" * 32, "00" * 12, "", "", "530f8afbc74536b9a963b4f1c4cb738b"),
    ("00" * 32, "00" * 12, "00" * 16, "", "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"),
    (_KEY, "cafebabefacedbaddecaf888", _TEXT, "", _CIPHER + "b094dac5d93471bdec1a502270e3cc6c"),
    (
        _KEY, "cafebabefacedbaddecaf888", _TEXT[:-8], "feedfacedeadbeeffeedfacedeadbeefabaddad2",
        _CIPHER[:-8] + "76fc6ece0f4e1768cddf8853bb2d551b",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("key", "nonce", "text", "aad", "sealed"), KNOWN_ANSWERS)
def test_a_local_key_is_aes_256_gcm(key: str, nonce: str, text: str, aad: str, sealed: str) -> None:
    """The published answers are decrypted, and with any part of them changed refused."""
    local = LocalKey("k1", bytes.fromhex(key))
    wrapped = bytes.fromhex(nonce + sealed)
    assert local.unwrap(wrapped, bytes.fromhex(aad)) == bytes.fromhex(text)
    for at in range(len(wrapped)):
        with pytest.raises(KeyRefused):
            local.unwrap(wrapped[:at] + bytes([wrapped[at] ^ 1]) + wrapped[at + 1 :], bytes.fromhex(aad))
    for changed in (bytes.fromhex(aad) + b"\0", bytes.fromhex(aad)[:-1] or b"x"):
        with pytest.raises(KeyRefused):
            local.unwrap(wrapped, changed)


def test_a_record_of_the_first_version_is_always_decrypted() -> None:
    """A row as the first version wrote it opens in every later one."""
    record = Sealed(
        "local:k1:df8c124c",
        base64.b64decode("Ufq3jBbgjNWoWbWtjQf+lC3VlyYM/y+/4ezRBekEETTbvlfsymagTAXzs6M/OY8ziwHlMiOyuOncD8w2"),
        base64.b64decode("qvOW4rjXdDVrrjtE"),
        base64.b64decode("khxQ6R+Z+bb1rzRjfvA96PJiw595sBistDbnud6RIHa+Gsy3iko6us6T"),
    )
    assert unseal(KEYS, BINDING, record) == SECRET
    assert unseal(KEYS, BINDING, rewrap(KEYS, BINDING, record)) == SECRET


@given(secret=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1), tenant=st.none() | st.text())
def test_what_is_sealed_opens_and_hides(secret: str, tenant: str | None) -> None:
    """Every secret comes back as it was; the same secret is never encrypted twice to the same bytes."""
    binding = replace(BINDING, tenant=tenant)
    first, second = seal(KEYS, binding, secret), seal(KEYS, binding, secret)
    assert unseal(KEYS, binding, first) == unseal(KEYS, binding, second) == secret
    assert first.nonce != second.nonce
    assert first.wrapped_key != second.wrapped_key
    assert SECRET not in repr(seal(KEYS, binding, SECRET))


@given(data=st.data())
def test_any_changed_bit_of_a_row_is_seen(data: st.DataObject) -> None:
    """A bit changed in any column that names the credential or holds its ciphertext keeps it from opening, and is said."""
    sealed = seal(KEYS, BINDING, SECRET)
    part = data.draw(st.sampled_from(("wrapped_key", "nonce", "ciphertext")))
    was: bytes = getattr(sealed, part)
    at = data.draw(st.integers(0, len(was) * 8 - 1))
    changed = bytearray(was)
    changed[at // 8] ^= 1 << at % 8
    refused(BINDING, replace(sealed, **{part: bytes(changed)}))
    column = data.draw(st.sampled_from(("credential_id", "provider", "tenant", "last_four")))
    text = bytearray(getattr(BINDING, column).encode())
    at = data.draw(st.integers(0, len(text) * 7 - 1))
    text[at // 7] ^= 1 << at % 7
    refused(replace(BINDING, **{column: text.decode()}), sealed)
    refused(replace(BINDING, tenant=None), sealed)
    refused(replace(BINDING, key_version=1 ^ 1 << data.draw(st.integers(0, 30))), sealed)


def test_parts_of_two_rows_make_none() -> None:
    """The ciphertext, the nonce or the data key of one credential is of no use in the row of another."""
    ours, theirs = replace(BINDING, tenant="acme"), replace(BINDING, tenant="globex")
    first, second = seal(KEYS, ours, "first"), seal(KEYS, theirs, "second")
    for part in ("wrapped_key", "nonce", "ciphertext"):
        refused(ours, replace(first, **{part: getattr(second, part)}))
    refused(ours, second)


def test_a_data_key_is_bound_to_the_key_that_wraps_it() -> None:
    """A row that names another key than the one that wrapped it does not open, even under the same bytes."""
    same_bytes = EncryptionKeys((*KEYS.keys, LocalKey("k2", bytes(range(32)))))
    sealed = seal(KEYS, BINDING, SECRET)
    with pytest.raises(CredentialError, match="was changed"):
        unseal(same_bytes, BINDING, replace(sealed, kek_id=same_bytes.keys[1].key_id))


def refused(binding: Binding, sealed: Sealed) -> None:
    """The row does not open, and the error names it, the next action, and no secret."""
    with pytest.raises(CredentialError) as failed:
        unseal(KEYS, binding, sealed)
    message = str(failed.value)
    assert binding.credential_id in message
    assert "its row was changed" in message
    assert "Restore the row from a backup, or revoke" in message
    assert SECRET not in message
    assert failed.value.__context__ is None


def test_an_older_key_still_opens_and_the_first_one_seals() -> None:
    """After a new key was put first, rows under the old one open, and what is re-wrapped is under the new one."""
    both = EncryptionKeys((LocalKey("k2", bytes(32)), *KEYS.keys))
    old = seal(KEYS, BINDING, SECRET)
    assert unseal(both, BINDING, old) == SECRET
    new = rewrap(both, BINDING, old)
    assert new.kek_id == both.active.key_id
    assert (new.nonce, new.ciphertext) == (old.nonce, old.ciphertext)
    assert unseal(EncryptionKeys(both.keys[:1]), BINDING, new) == SECRET


def test_an_unknown_key_is_named_with_the_next_action() -> None:
    """A row under a key that is not in the setting says which key that is."""
    sealed = seal(KEYS, BINDING, SECRET)
    with pytest.raises(
        CredentialError, match=f"{BINDING.credential_id} is encrypted under the key local:k1:"
    ) as failed:
        unseal(EncryptionKeys((LocalKey("k2", bytes(32)),)), BINDING, sealed)
    assert "add that key" in str(failed.value)


def test_another_key_under_the_same_name_is_told_apart() -> None:
    """A key file with the right name and the wrong bytes is recognised as such, not taken for a changed row."""
    sealed = seal(KEYS, BINDING, SECRET)
    with pytest.raises(CredentialError, match=r"is another one .*put the right key back"):
        unseal(EncryptionKeys((LocalKey("k1", bytes(32)),)), BINDING, sealed)


def test_keys_are_read_from_files_and_variables(tmp_path: Path) -> None:
    """Several keys by name, the first of all active; comments and empty lines are none."""
    file = tmp_path / "keys"
    file.write_text(f"# ours\n{new_local_key('new')}\n\n{new_local_key('old')} # until May\n")
    keys = encryption_keys(f"file:{file} env:MORE", {"MORE": new_local_key("more")})
    assert [key.key_id.split(":")[1] for key in keys.keys] == ["new", "old", "more"]
    assert keys.active is keys.keys[0]
    assert encryption_keys(f"file:{file}", {}).active.key_id == keys.active.key_id


LINE = new_local_key("k1")


@pytest.mark.parametrize(
    ("setting", "text", "said"),
    [
        (LINE, "", "value 1 is no place of a key"), ("file:{file}", "", "There is no key in"),
        ("file:{file}", LINE[:-5], "Line 1"), ("file:{file}", f"{LINE}\nk2:{'=' * 44}", "Line 2"),
        ("file:{file}", LINE.partition(":")[2], "Line 1"), ("file:{file}", f"{LINE}\n{LINE}", "has the name k1 again"),
        ("file:{file}.not", "", "cannot be read"), ("file:{file} env:KEYS", LINE, "twice"),
        ("env:NOT_SET", "", "NOT_SET, which is not set"), ("file:", "", "value 1"),
        ("vault:https://host/onlyone", "", "no address of a transit key"),
        ("vault:http://vault.example.com/transit/key", "", "no address of a transit key"),
        ("vault:https://vault.example.com/transit/key", "", "VAULT_TOKEN is not set"),
        ("aws-kms:key/1234", "", "no ARN"),
    ],
    # The keys are drawn anew, and are not to stand in a test's name.
    ids=lambda value: "key" if LINE.partition(":")[2][:20] in value else value,
)  # fmt: skip
def test_a_setting_that_is_no_key_is_refused(tmp_path: Path, setting: str, text: str, said: str) -> None:
    """Each error names the setting or the line, what to give, and nothing of a key."""
    file = tmp_path / "keys"
    file.write_text(text)
    with pytest.raises(SettingsError, match=said) as failed:
        encryption_keys(setting.format(file=file), {"KEYS": LINE})
    assert LINE.partition(":")[2][:20] not in str(failed.value)
    assert str(failed.value).endswith(".")


def test_without_a_setting_nothing_is_sealed() -> None:
    """No key is invented: storing a credential says which setting to give and how to get a key."""
    with pytest.raises(SettingsError, match=r"MILLSTREAM_KEY_ENCRYPTION is not set.*new-encryption-key"):
        seal(encryption_keys(None, {}), BINDING, SECRET)


def test_a_missing_boto3_is_said_only_to_those_who_ask_for_kms() -> None:
    """Without the extra, local keys work, and a key of KMS names what to install."""
    program = (
        "import sys; sys.modules['boto3'] = None\n"
        "from config.key_encryption import encryption_keys, new_local_key\n"
        "encryption_keys('env:KEY', {'KEY': new_local_key('k1')})\n"
        "try: encryption_keys('aws-kms:arn:aws:kms:eu-central-1:111122223333:key/1234', {})\n"
        "except ValueError as why: print(why)"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "boto3 is not installed; install it with `pip install 'millstream[aws]'`" in said
