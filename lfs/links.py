"""Signed links: what lets a client move the bytes of one object without logging in again.

Text of a link, in the query as `?link=`:

    base64url(msgpack of what it is for) "." base64url(HMAC-SHA256 of the part before the dot)

It names the actor and the credential too, so that whoever uses it can be asked about again: a link is never
worth more than the credential that it was made with. Session tokens have the same form with another key;
`git-lfs-authenticate` hands them out over SSH, for the HTTP face of one repository.
"""

import base64
import binascii
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.constant_time import bytes_eq
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from core.access import Actor, ActorKind
from core.errors import InvalidCredentials
from core.models import Scope
from lfs.errors import LinkRefused

# Recognisable to secret scanners, and no access token.
SESSION_PREFIX = "mylfs_"

# The longest that S3 signs for, and long enough for any upload.
MAX_LINK_SECONDS = 7 * 24 * 3600

# What we make is below 500 characters.
_MAX_TEXT = 2048

T = TypeVar("T")


class Use(StrEnum):
    """What a link is good for."""

    DOWNLOAD = "download"
    UPLOAD = "upload"
    VERIFY = "verify"
    PART = "part"
    COMPLETE = "complete"
    ABORT = "abort"

    @property
    def writes(self) -> bool:
        """Whether it needs the right to write."""
        return self is not Use.DOWNLOAD


@dataclass(frozen=True, slots=True)
class Link:
    """One permission. `expires` is in Unix time; `upload_id` and `part` belong to an upload in parts."""

    use: Use
    repository_id: str
    oid: str
    size: int
    actor: Actor
    expires: int
    upload_id: str = ""
    part: int = 0


@dataclass(frozen=True, slots=True)
class Session:
    """Leave to use the LFS API of one repository. `expires` is in Unix time."""

    repository_id: str
    writes: bool
    actor: Actor
    expires: int


class Links:
    """Signs and reads links and sessions with keys that are derived from the server's sealing key."""

    def __init__(self, sealing_key: bytes) -> None:
        self._link_key = _derive(sealing_key, b"modelyard lfs link 1")
        self._session_key = _derive(sealing_key, b"modelyard lfs session 1")

    def sign(self, link: Link) -> str:
        """The text of the link; goes into a query as it is."""
        return _seal(self._link_key, _LinkBody.of(link))

    def verify(self, text: str, *, now: float) -> Link:
        """What was signed; `now` is Unix time. Whom and what it is for is the caller's to compare.

        Raises:
            LinkRefused: in the same words whatever is wrong.
        """
        link = _unseal(self._link_key, text, _LinkBody, _LinkBody.link)
        if link is None or link.expires <= now:
            raise LinkRefused(REFUSED)
        return link

    def sign_session(self, session: Session) -> str:
        """A bearer token that begins with `SESSION_PREFIX`."""
        return SESSION_PREFIX + _seal(self._session_key, _SessionBody.of(session))

    def verify_session(self, text: str, *, now: float) -> Session:
        """What was signed; `now` is Unix time.

        Raises:
            InvalidCredentials: in the same words whatever is wrong.
        """
        body = text.removeprefix(SESSION_PREFIX)
        session = _unseal(self._session_key, body, _SessionBody, _SessionBody.session)
        if session is None or session.expires <= now or not text.startswith(SESSION_PREFIX):
            raise InvalidCredentials("this session expired; ask for a new one over SSH")
        return session


# Of links that are forged, expired, for something else, or whose credential was revoked.
REFUSED = "this link is not valid, or not any more; ask for a new one"


class _ActorBody(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    kind: ActorKind
    name: str
    user_id: int | None
    scope: Scope | None
    repository_id: str | None
    read_only: bool
    credential: str
    address: str

    @classmethod
    def of(cls, actor: Actor) -> "_ActorBody":
        return cls(
            actor.kind,
            actor.name,
            actor.user_id,
            actor.scope,
            actor.repository_id,
            actor.read_only,
            actor.credential,
            actor.address,
        )

    def actor(self) -> Actor:
        # Never an administrator by signature: `core.access` asks the database who is one now.
        return Actor(
            self.kind,
            self.name,
            user_id=self.user_id,
            scope=self.scope,
            repository_id=self.repository_id,
            read_only=self.read_only,
            credential=self.credential,
            address=self.address,
        )


class _LinkBody(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    use: Use
    repository_id: str
    oid: str
    size: int
    actor: _ActorBody
    expires: int
    upload_id: str
    part: int

    @classmethod
    def of(cls, link: Link) -> "_LinkBody":
        return cls(
            link.use,
            link.repository_id,
            link.oid,
            link.size,
            _ActorBody.of(link.actor),
            link.expires,
            link.upload_id,
            link.part,
        )

    def link(self) -> Link:
        return Link(
            self.use,
            self.repository_id,
            self.oid,
            self.size,
            self.actor.actor(),
            self.expires,
            self.upload_id,
            self.part,
        )


class _SessionBody(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    repository_id: str
    writes: bool
    actor: _ActorBody
    expires: int

    @classmethod
    def of(cls, session: Session) -> "_SessionBody":
        return cls(session.repository_id, session.writes, _ActorBody.of(session.actor), session.expires)

    def session(self) -> Session:
        return Session(self.repository_id, self.writes, self.actor.actor(), self.expires)


B = TypeVar("B", bound=msgspec.Struct)


def _derive(sealing_key: bytes, info: bytes) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=info).derive(sealing_key)


def _seal(key: bytes, body: msgspec.Struct) -> str:
    text = _encoded(msgspec.msgpack.encode(body))
    return f"{text}.{_tag(key, text)}"


def _unseal(key: bytes, text: str, kind: type[B], opened: Callable[[B], T]) -> T | None:
    """None for whatever was not signed with this key."""
    body, dot, tag = text.partition(".")
    if not dot or len(text) > _MAX_TEXT or not text.isascii():
        return None
    # The texts are compared, not what they decode to: base64 has more than one spelling of the same bytes.
    if not bytes_eq(_tag(key, body).encode(), tag.encode()):
        return None
    try:
        raw = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
        return opened(msgspec.msgpack.decode(raw, type=kind))
    except (binascii.Error, msgspec.MsgspecError):  # signed by another version of this program
        return None


def _tag(key: bytes, text: str) -> str:
    # In one call: a batch has a thousand of them, and an object for each costs four times as much.
    return _encoded(hmac.digest(key, text.encode(), "sha256"))


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
