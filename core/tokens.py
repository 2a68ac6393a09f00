"""Access tokens: `myd_`, 40 random base62 characters (238 bits), and 6 of a CRC-32.

The checksum lets secret scanners and this server tell a token from a typing mistake without asking anybody.
Only the SHA-256 is stored: nothing slow is needed for a secret that cannot be guessed.
"""

import hashlib
import secrets
import string
import zlib
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from core.models import AccessToken, Scope
from core.passwords import TOKEN_PREFIX

_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_RANDOM = 40
_CHECKSUM = 6


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """A token without its secret. `repository` is the path of the only one it is good for, or None.

    What is pushed with a token `for_runs` fires no rules, unless they ask for it.
    """

    id: int
    user: str
    name: str
    scope: Scope
    repository: str | None
    for_runs: bool
    expires_at: datetime | None
    last_used_at: datetime | None
    created_at: datetime

    @classmethod
    def of(cls, token: AccessToken, user: str, repository: str | None) -> Self:
        return cls(
            id=token.id,
            user=user,
            name=token.name,
            scope=Scope(token.scope),
            repository=repository,
            for_runs=token.for_runs,
            expires_at=token.expires_at,
            last_used_at=token.last_used_at,
            created_at=token.created_at,
        )


def new_secret() -> str:
    """A new token, in full. It is shown once."""
    random = "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM))
    return TOKEN_PREFIX + random + _checksum(random)


def is_token(text: str) -> bool:
    """Whether `text` claims to be a token, well formed or not."""
    return text.startswith(TOKEN_PREFIX)


def is_well_formed(text: str) -> bool:
    """Whether `text` could be a token of ours."""
    body = text.removeprefix(TOKEN_PREFIX)
    if not is_token(text) or len(body) != _RANDOM + _CHECKSUM or not set(body) <= set(_ALPHABET):
        return False
    return secrets.compare_digest(body[_RANDOM:], _checksum(body[:_RANDOM]))


def digest(secret: str) -> str:
    """What is stored of a token, and looked up."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _checksum(random: str) -> str:
    value, characters = zlib.crc32(random.encode()), ""
    for _ in range(_CHECKSUM):
        value, index = divmod(value, len(_ALPHABET))
        characters = _ALPHABET[index] + characters
    return characters
