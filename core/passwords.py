"""Passwords: Argon2id, computed in threads, a bounded number at a time."""

import asyncio
import hmac
import os
import time
from collections import OrderedDict

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from core.errors import Unprocessable
from core.settings import AuthSettings

# OWASP's first choice for Argon2id: 19 MiB, two passes; about 30 ms of one core.
_MEMORY_KIB = 19 * 1024
_ITERATIONS = 2
_LANES = 1

_MAX_BYTES = 1024
_MAX_REMEMBERED = 4096
TOKEN_PREFIX = "myd_"  # noqa: S105 - what every token begins with


class Passwords:
    """Hashes and verifies, and remembers for a little while what it verified.

    Git sends the password with every request of a clone. What is remembered is a digest, keyed by a secret
    of this process, over the stored hash and the password: it is worth nothing once the stored hash
    changed, and the caller reads that from the account's row every time.
    """

    def __init__(self, settings: AuthSettings) -> None:
        self._min_length = settings.password_min_length
        self._seconds = settings.password_cache_seconds
        # More at a time would only make each slower, and memory is the point of Argon2.
        self._slots = asyncio.Semaphore(min(2, os.cpu_count() or 1))
        self._secret = os.urandom(32)
        self._remembered: OrderedDict[bytes, float] = OrderedDict()

    async def hash(self, password: str) -> str:
        """What to store for a new password.

        Raises:
            Unprocessable: it is too short, too long, or looks like an access token.
        """
        if len(password) < self._min_length:
            raise Unprocessable(f"a password has at least {self._min_length} characters", field="password")
        if len(_bytes(password)) > _MAX_BYTES:
            raise Unprocessable(f"a password has at most {_MAX_BYTES} bytes", field="password")
        if password.startswith(TOKEN_PREFIX):
            raise Unprocessable(f"a password cannot begin with {TOKEN_PREFIX}", field="password")
        async with self._slots:
            return await asyncio.to_thread(_hash, password)

    @property
    def slots(self) -> asyncio.Semaphore:
        """Hold one around `verify`; what guards against guessing is looked at again inside."""
        return self._slots

    async def verify(self, password: str, stored: str | None) -> bool:
        """Whether `password` is the one; takes as long when nothing is stored."""
        if len(_bytes(password)) > _MAX_BYTES:
            return False
        if not await asyncio.to_thread(_verify, password, stored) or stored is None:
            return False
        self._remember(password, stored)
        return True

    def is_remembered(self, password: str, stored: str | None) -> bool:
        """Whether `verify` was true for the same two a little while ago."""
        if stored is None or len(password) > _MAX_BYTES:
            return False
        until = self._remembered.get(self._digest(password, stored))
        return until is not None and until > time.monotonic()

    def _remember(self, password: str, stored: str) -> None:
        if self._seconds <= 0:
            return
        digest = self._digest(password, stored)
        self._remembered[digest] = time.monotonic() + self._seconds
        self._remembered.move_to_end(digest)
        while len(self._remembered) > _MAX_REMEMBERED:
            self._remembered.popitem(last=False)

    def _digest(self, password: str, stored: str) -> bytes:
        return hmac.digest(self._secret, stored.encode() + b"\0" + _bytes(password), "sha256")


def _hash(password: str) -> str:
    return _argon2id().derive_phc_encoded(_bytes(password))


def _verify(password: str, stored: str | None) -> bool:
    if stored is None:
        _argon2id().derive(_bytes(password))
        return False
    try:
        Argon2id.verify_phc_encoded(_bytes(password), stored)
    except InvalidKey:
        return False
    return True


def _argon2id() -> Argon2id:
    return Argon2id(
        salt=os.urandom(16), length=32, iterations=_ITERATIONS, lanes=_LANES, memory_cost=_MEMORY_KIB
    )


def _bytes(password: str) -> bytes:
    # Whatever a client sent must be comparable, lone surrogates too.
    return password.encode("utf-8", "surrogatepass")
