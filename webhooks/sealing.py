"""Signing secrets: made here, sealed at rest, shown once.

A secret is `whsec_` and the base64 of 32 random bytes, as Standard Webhooks has it. At rest those of one
subscription are one sealed text: AES-256-GCM under a key derived from the server's sealing key, bound to the
id of the subscription, so that a row copied elsewhere opens nothing.
"""

import base64
import binascii
from collections.abc import Iterable, Sequence
from secrets import token_bytes

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from core.errors import Unprocessable
from webhooks.errors import SecretsUnreadable

PREFIX = "whsec_"
# Of Standard Webhooks: between 192 and 512 bits.
_MIN_BYTES, _MAX_BYTES = 24, 64
# How many sign at once while they are being rotated.
MAX_SECRETS = 4
_NONCE_BYTES = 12


class StoredSecret(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One secret; times are Unix times. After `expires` it signs no more; None is never."""

    text: str
    created: int
    expires: int | None = None

    def signs(self, at: float) -> bool:
        return self.expires is None or at < self.expires


class SecretBox:
    """Seals and opens the secrets of subscriptions."""

    def __init__(self, sealing_key: bytes) -> None:
        derived = HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=b"modelyard webhook secrets 1")
        self._cipher = AESGCM(derived.derive(sealing_key))

    def seal(self, webhook_id: int, secrets: Sequence[StoredSecret]) -> bytes:
        """The newest secret comes first."""
        nonce = token_bytes(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, msgspec.json.encode(secrets), _bound_to(webhook_id))

    def open(self, webhook_id: int, sealed: bytes) -> list[StoredSecret]:
        """What was sealed for this subscription.

        Raises:
            SecretsUnreadable: it was not, or with another key.
        """
        try:
            text = self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _bound_to(webhook_id))
            return msgspec.json.decode(text, type=list[StoredSecret])
        except (InvalidTag, ValueError, msgspec.MsgspecError) as error:
            raise SecretsUnreadable(
                "the secrets of this webhook cannot be opened with this server's sealing key; rotate them"
            ) from error


def new_secret() -> str:
    return PREFIX + base64.b64encode(token_bytes(32)).decode()


def check_secret(text: str) -> str:
    """Returns a secret that somebody chose.

    Raises:
        Unprocessable: it is not `whsec_` and the base64 of 24 to 64 bytes.
    """
    if text.startswith(PREFIX) and text.isascii() and _MIN_BYTES <= len(key_of(text)) <= _MAX_BYTES:
        return text
    raise Unprocessable(
        f"a secret is `{PREFIX}` and the base64 of {_MIN_BYTES} to {_MAX_BYTES} bytes", field="secret"
    )


def key_of(secret: str) -> bytes:
    """The bytes that a secret stands for; empty for what is no secret."""
    try:
        return base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return b""


def signing(secrets: Iterable[StoredSecret], at: float) -> list[str]:
    """The secrets that sign at this Unix time, the newest first."""
    return [secret.text for secret in secrets if secret.signs(at)]


def _bound_to(webhook_id: int) -> bytes:
    return f"webhook {webhook_id}".encode()
