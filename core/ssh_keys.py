"""SSH public keys: which are accepted, and what identifies them."""

import base64
import binascii
import hashlib
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from core.errors import Unprocessable

ACCEPTED_TYPES = frozenset(
    """
    ssh-ed25519 ssh-rsa ecdsa-sha2-nistp256 ecdsa-sha2-nistp384 ecdsa-sha2-nistp521
    sk-ssh-ed25519@openssh.com sk-ecdsa-sha2-nistp256@openssh.com
    """.split()
)

_MIN_RSA_BITS = 2048
_MAX_RSA_BITS = 16384
_MAX_TEXT = 16 * 1024


class InvalidKey(Unprocessable):
    """The text is no public key that this server accepts; the message says why."""

    code = "invalid_key"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key.

    Attributes:
        fingerprint: `SHA256:…` as `ssh-keygen -l` prints it.
        openssh: `type base64`, without the comment.
    """

    type: str
    fingerprint: str
    openssh: str
    comment: str


def parse_public_key(text: str) -> PublicKey:
    """Reads one line of a `.pub` file.

    Raises:
        InvalidKey: not one key, a private key, or of a type or size that is not accepted.
    """
    text = text.strip()
    if "PRIVATE KEY" in text:
        raise InvalidKey("this is a private key; keep it to yourself and give the .pub file")
    if len(text) > _MAX_TEXT or len(text.splitlines()) != 1:
        raise InvalidKey("a public key is one line, as in a .pub file")
    kind, _, rest = text.partition(" ")
    encoded, _, comment = rest.strip().partition(" ")
    if kind.endswith("-cert-v01@openssh.com"):
        raise InvalidKey("certificates are not accepted; give the public key itself")
    if kind not in ACCEPTED_TYPES:
        raise InvalidKey("the key is none of ed25519, ecdsa, rsa, sk-ed25519 and sk-ecdsa")
    blob = _decoded(encoded)
    if blob[4 : 4 + int.from_bytes(blob[:4])] != kind.encode():
        raise InvalidKey("the key is damaged: it is of another type than it says")
    openssh = f"{kind} {base64.b64encode(blob).decode()}"
    _check(openssh)
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    return PublicKey(kind, f"SHA256:{digest}", openssh, _printable(comment))


def _decoded(encoded: str) -> bytes:
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidKey("the key is damaged: it is not base64") from error


def _check(openssh: str) -> None:
    try:
        key = load_ssh_public_key(openssh.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidKey("the key is damaged") from error
    if isinstance(key, RSAPublicKey) and not _MIN_RSA_BITS <= key.key_size <= _MAX_RSA_BITS:
        raise InvalidKey(
            f"an RSA key has {_MIN_RSA_BITS} to {_MAX_RSA_BITS} bits, and this one {key.key_size}"
        )


def _printable(comment: str) -> str:
    return "".join(character for character in comment if character.isprintable()).strip()[:100]
