"""Signed links: what lets a client move the bytes of one object without logging in again.

Text of a link, in the query as `?link=`:

    grant "." subject "." tag

The tag is half of the HMAC-SHA256 of what is before the last dot, in hexadecimal (RFC 2104, section 5). The
grant is base64url(msgpack of repository, actor and expiry), the same in all links of a batch; the subject is
`use-oid-size-upload_id-part` as it stands. The grant names the actor and the credential, so that whoever uses
the link can be asked about again: a link is never worth more than the credential that it was made with.
Session tokens are a grant of their own with a tag under another key; `git-lfs-authenticate` hands them out
over SSH, for the HTTP face of one repository.
"""

import base64
import binascii
import hmac
import re
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

_TAG_BYTES = 16

# What we make is below 500 characters.
_MAX_TEXT = 2048


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


_SUBJECT = re.compile(
    rf"({'|'.join(Use)})-([0-9a-f]{{64}})-([0-9]{{1,19}})-([0-9a-f]*)-([0-9]{{1,9}})", re.ASCII
)


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


class Grant:
    """What the links of one answer have in common; see `Links.grant`."""

    def __init__(self, key: bytes, text: str) -> None:
        self._key = key
        self._text = text

    def sign(self, use: Use, oid: str, size: int, *, upload_id: str = "", part: int = 0) -> str:
        """The text of a link; goes into a query as it is. `oid` and `upload_id` are hexadecimal."""
        text = f"{self._text}.{use}-{oid}-{size}-{upload_id}-{part}"
        return f"{text}.{_tag(self._key, text)}"


class Links:
    """Signs and reads links and sessions with keys that are derived from the server's sealing key."""

    def __init__(self, sealing_key: bytes) -> None:
        self._link_key = _derive(sealing_key, b"modelyard lfs link 1")
        self._session_key = _derive(sealing_key, b"modelyard lfs session 1")

    def grant(self, repository_id: str, actor: Actor, expires: int) -> Grant:
        """Signs any number of links of this actor to this repository; `expires` is in Unix time."""
        body = _GrantBody(repository_id, _ActorBody.of(actor), expires)
        return Grant(self._link_key, _encoded(msgspec.msgpack.encode(body)))

    def sign(self, link: Link) -> str:
        """The text of one link; goes into a query as it is."""
        grant = self.grant(link.repository_id, link.actor, link.expires)
        return grant.sign(link.use, link.oid, link.size, upload_id=link.upload_id, part=link.part)

    def verify(self, text: str, *, now: float) -> Link:
        """What was signed; `now` is Unix time. Whom and what it is for is the caller's to compare.

        Raises:
            LinkRefused: in the same words whatever is wrong.
        """
        body, _, subject = _signed(self._link_key, text).partition(".")
        grant, fields = _decoded(body, _GrantBody), _SUBJECT.fullmatch(subject)
        if grant is None or fields is None or grant.expires <= now:
            raise LinkRefused(REFUSED)
        use, oid, size, upload_id, part = fields.groups()
        actor = grant.actor.actor()
        return Link(Use(use), grant.repository_id, oid, int(size), actor, grant.expires, upload_id, int(part))

    def sign_session(self, session: Session) -> str:
        """A bearer token that begins with `SESSION_PREFIX`."""
        text = _encoded(msgspec.msgpack.encode(_SessionBody.of(session)))
        return f"{SESSION_PREFIX}{text}.{_tag(self._session_key, text)}"

    def verify_session(self, text: str, *, now: float) -> Session:
        """What was signed; `now` is Unix time.

        Raises:
            InvalidCredentials: in the same words whatever is wrong.
        """
        signed = _signed(self._session_key, text.removeprefix(SESSION_PREFIX))
        body = _decoded(signed, _SessionBody)
        if body is None or body.expires <= now or not text.startswith(SESSION_PREFIX):
            raise InvalidCredentials("this session expired; ask for a new one over SSH")
        return Session(body.repository_id, body.writes, body.actor.actor(), body.expires)


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


class _GrantBody(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    repository_id: str
    actor: _ActorBody
    expires: int


class _SessionBody(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    repository_id: str
    writes: bool
    actor: _ActorBody
    expires: int

    @classmethod
    def of(cls, session: Session) -> "_SessionBody":
        return cls(session.repository_id, session.writes, _ActorBody.of(session.actor), session.expires)


B = TypeVar("B", bound=msgspec.Struct)


def _derive(sealing_key: bytes, info: bytes) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=info).derive(sealing_key)


def _signed(key: bytes, text: str) -> str:
    """What stands before the tag; empty for whatever was not signed with this key."""
    body, _, tag = text.rpartition(".")
    if len(text) > _MAX_TEXT or not text.isascii():
        return ""
    # The texts are compared, not what they decode to: base64 has more than one spelling of the same bytes.
    return body if bytes_eq(_tag(key, body).encode(), tag.encode()) else ""


def _decoded(text: str, kind: type[B]) -> B | None:
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        return msgspec.msgpack.decode(raw, type=kind)
    except (binascii.Error, msgspec.MsgspecError):  # signed by another version of this program
        return None


def _tag(key: bytes, text: str) -> str:
    # In one call: a batch has a thousand of them, and an object for each costs four times as much.
    return hmac.digest(key, text.encode(), "sha256")[:_TAG_BYTES].hex()


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
