"""A key in AWS KMS (https://docs.aws.amazon.com/kms/latest/APIReference/API_Encrypt.html), through boto3.

boto3 finds its credentials and endpoint as it always does. The associated data is the encryption context, which CloudTrail
shows: it holds ids and names, no secret.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import Any

from config.key_encryption import KeyAway, KeyRefused
from config.settings import SettingsError

REFUSED = ("InvalidCiphertextException", "IncorrectKeyException")


class AwsKey:
    """The key with this ARN; `SettingsError` for another form, or when boto3 is not installed."""

    def __init__(self, arn: str) -> None:
        parts = arn.split(":")
        if len(parts) != 6 or parts[0] != "arn" or parts[2] != "kms":
            raise SettingsError(
                "The aws-kms: part of MILLSTREAM_KEY_ENCRYPTION is no ARN of a key; "
                "give aws-kms:arn:aws:kms:region:account:key/id."
            )
        try:
            boto3 = import_module("boto3")
            botocore = import_module("botocore.exceptions")
        except ImportError:
            raise SettingsError(
                "MILLSTREAM_KEY_ENCRYPTION names a key of AWS KMS and boto3 is not installed; "
                "install it with `pip install 'millstream[aws]'`."
            ) from None
        # At DEBUG it writes requests down whole, the data key included.
        logging.getLogger("botocore").setLevel(logging.INFO)
        self.key_id = f"aws-kms:{arn}"
        self._arn = arn
        self._client: Any = boto3.client("kms", region_name=parts[3])
        self._client_error: type[Exception] = botocore.ClientError
        self._other_error: type[Exception] = botocore.BotoCoreError

    def wrap(self, data_key: bytes, aad: bytes) -> bytes:
        """KMS's ciphertext of the data key."""
        wrapped: bytes = self._ask("encrypt", Plaintext=data_key, EncryptionContext=_context(aad))["CiphertextBlob"]
        return wrapped

    def unwrap(self, wrapped: bytes, aad: bytes) -> bytes:
        """The data key; `KeyRefused` when KMS does not take the ciphertext."""
        if not wrapped:
            raise KeyRefused
        data_key: bytes = self._ask("decrypt", CiphertextBlob=wrapped, EncryptionContext=_context(aad))["Plaintext"]
        return data_key

    def _ask(self, action: str, **arguments: Any) -> Any:
        problem: Exception
        try:
            return getattr(self._client, action)(KeyId=self._arn, **arguments)
        except self._client_error as refused:
            code = refused.response["Error"]["Code"]  # type: ignore[attr-defined]
            known = action == "decrypt" and code in REFUSED
            problem = KeyRefused() if known else KeyAway(f"AWS KMS answered {code} for {self._arn}; check its policy")
        except self._other_error as why:
            problem = KeyAway(
                f"AWS KMS could not be asked ({type(why).__name__}); check the network and AWS's credentials"
            )
        raise problem


def _context(aad: bytes) -> dict[str, str]:
    return {"millstream": aad.decode()}
