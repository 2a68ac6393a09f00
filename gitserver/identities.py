"""Who commits, and with which words: the texts that go into commit and tag objects."""

import unicodedata
from dataclasses import dataclass
from datetime import datetime

from core.access import Actor
from core.errors import Unprocessable
from core.models import now

MAX_MESSAGE_BYTES = 64 * 1024
_MAX_IDENTITY_BYTES = 250
NO_REPLY_DOMAIN = "users.noreply.modelyard"


class InvalidIdentity(Unprocessable):
    """A name or an email address that cannot stand in a commit."""

    code = "invalid_identity"


class InvalidMessage(Unprocessable):
    """A message that cannot stand in a commit."""

    code = "invalid_message"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who is to be named in a commit or tag. `when` is an aware time, None for now."""

    name: str
    email: str
    when: datetime | None = None


def identity_of(actor: Actor, *, email: str = "") -> Identity:
    """How commits name an actor; without an address of their own, by one that takes no mail."""
    return Identity(actor.name, email or f"{actor.name}@{NO_REPLY_DOMAIN}")


def signature_line(identity: Identity) -> bytes:
    """`Name <email> seconds zone`, as commits and tags hold it.

    Raises:
        InvalidIdentity: a part is empty, too long, or has characters that would end it.
    """
    when = identity.when or now()
    zone = when.strftime("%z")
    seconds = int(when.timestamp())
    if not zone or seconds < 0:
        raise InvalidIdentity("the time of a commit has a time zone and lies after 1970")
    name, email = _part(identity.name, "name"), _part(identity.email, "email address")
    return b"%s <%s> %d %s" % (name, email, seconds, zone[:5].encode())


def check_message(message: str) -> bytes:
    """The message as Git stores it: LF at line ends and at the end.

    Raises:
        InvalidMessage: it is empty, too long, or no text.
    """
    try:
        raw = message.replace("\r\n", "\n").replace("\r", "\n").strip("\n").encode()
    except UnicodeEncodeError:
        raise InvalidMessage("the message is not UTF-8") from None
    if not raw.strip():
        raise InvalidMessage("the message is empty")
    if b"\0" in raw:
        raise InvalidMessage("the message has a NUL in it")
    if len(raw) > MAX_MESSAGE_BYTES:
        raise InvalidMessage(f"the message is longer than {MAX_MESSAGE_BYTES} bytes")
    return raw + b"\n"


def _part(text: str, what: str) -> bytes:
    stripped = text.strip()
    try:
        raw = stripped.encode()
    except UnicodeEncodeError:
        raise InvalidIdentity(f"the {what} is not UTF-8") from None
    if not raw or len(raw) > _MAX_IDENTITY_BYTES:
        raise InvalidIdentity(f"the {what} has 1 to {_MAX_IDENTITY_BYTES} bytes")
    if any(character in "<>" or unicodedata.category(character) == "Cc" for character in stripped):
        raise InvalidIdentity(f"the {what} has characters that cannot stand in a commit")
    return raw
