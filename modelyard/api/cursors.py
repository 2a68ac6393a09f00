"""Pages: a window into a list that is ordered by a key, and the signed cursor that names where to go on."""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from core.errors import InvalidCursor, NotFound

Key = TypeVar("Key")
Item = TypeVar("Item")
View = TypeVar("View")

DEFAULT_LIMIT = 30
MAX_LIMIT = 100
_MAC_BYTES = 12


class Cursors:
    """Writes and reads cursors. A cursor is good for the operation that gave it, on every worker."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def write(self, operation: str, key: object) -> str:
        """The cursor of the items after `key` in the answers of `operation`."""
        body = msgspec.json.encode(key)
        return urlsafe_b64encode(self._mac(operation, body) + body).decode().rstrip("=")

    def read(self, operation: str, cursor: str, key_type: Any) -> Any:
        """The key that `write` was given.

        Raises:
            InvalidCursor: this server never gave that cursor for this operation.
        """
        try:
            data = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
            mac, body = data[:_MAC_BYTES], data[_MAC_BYTES:]
            if hmac.compare_digest(mac, self._mac(operation, body)):
                return msgspec.json.decode(body, type=key_type)
        except (ValueError, msgspec.DecodeError):  # no base64; or the key had another type in another version
            pass
        raise InvalidCursor("this cursor was not given by this operation; start again without it")

    def _mac(self, operation: str, body: bytes) -> bytes:
        return hmac.digest(self._secret, operation.encode() + b"\0" + body, "sha256")[:_MAC_BYTES]


def one(items: Iterable[Item], key: Callable[[Item], int], wanted: int) -> Item:
    """The item that is called `wanted`, of a list that is short enough to be read as a whole.

    Raises:
        NotFound: there is none.
    """
    for item in items:
        if key(item) == wanted:
            return item
    raise NotFound("there is nothing at this address")


@dataclass(frozen=True, slots=True)
class Page(Generic[View]):
    """Some items, and the key of the last one if there are more."""

    items: list[View]
    last: object | None


@dataclass(frozen=True, slots=True)
class Window(Generic[Key]):
    """Which items the client asks for: at most `limit` of those after the key `after`.

    A handler fetches `fetch` items, one more than it may show, so that it knows whether there are more.
    """

    limit: int
    after: Key | None

    @property
    def fetch(self) -> int:
        return self.limit + 1

    def page(
        self, found: Sequence[Item], view: Callable[[Item], View], key: Callable[[Item], Key]
    ) -> Page[View]:
        """The page of `found`, which was fetched for this window."""
        shown = found[: self.limit]
        more = len(found) > len(shown)
        return Page([view(item) for item in shown], key(shown[-1]) if more else None)

    def page_of_all(
        self, everything: Iterable[Item], view: Callable[[Item], View], key: Callable[[Item], Any]
    ) -> Page[View]:
        """The page of a list that is short enough to be read as a whole, in the order of `key`."""
        ordered = sorted(everything, key=key)
        rest = [item for item in ordered if self.after is None or key(item) > self.after]
        return self.page(rest[: self.fetch], view, key)
