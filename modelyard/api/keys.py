"""`/users/{name}/keys`: public keys that let a user in over SSH."""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from core.errors import AccountNotFound, AlreadyExists, Unprocessable
from core.keyring import KeyInfo
from core.ssh_keys import InvalidKey
from modelyard.api.call import Call
from modelyard.api.cursors import Page, Window, one
from modelyard.api.operation import Access, Operations
from modelyard.api.parameters import Id, Name

operations = Operations("keys", "Public keys that let a user in over SSH.")

PublicKeyText = Annotated[
    str, Meta(min_length=1, max_length=16384, description="One line, as in a `.pub` file.")
]
KeyTitle = Annotated[str, Meta(max_length=100, description="Left out, the key's comment.")]


class KeyView(msgspec.Struct):
    id: int
    title: str
    fingerprint: str
    public_key: str
    last_used_at: datetime | None
    created_at: datetime


class NewKey(msgspec.Struct, forbid_unknown_fields=True):
    """A public key: ed25519, ecdsa, rsa of 2048 bits or more, or one on a security key."""

    key: PublicKeyText
    title: KeyTitle = ""


def _view(key: KeyInfo) -> KeyView:
    return msgspec.convert(key, KeyView, from_attributes=True)


@operations.add("GET", "/users/{name}/keys", access=Access.ACCOUNT, errors=(AccountNotFound,))
async def list_keys(call: Call, name: Name, window: Window[int]) -> Page[KeyView]:
    """List a user's keys.

    Your own, or anybody's for an administrator. Oldest first.
    """
    found = await call.services.keyring.keys(call.actor, name)
    return window.page_of_all(found, _view, lambda key: key.id)


@operations.add(
    "POST",
    "/users/{name}/keys",
    access=Access.ACCOUNT,
    status=201,
    errors=(AccountNotFound, AlreadyExists, InvalidKey, Unprocessable),
)
async def add_key(call: Call, name: Name, body: NewKey) -> KeyView:
    """Add a key.

    A key proves one identity only: it cannot be added twice.
    """
    key = await call.services.keyring.add_key(call.actor, name, body.key, body.title)
    call.created("/users/{name}/keys/{key}", name=name, key=key.id)
    return _view(key)


@operations.add("GET", "/users/{name}/keys/{key}", access=Access.ACCOUNT, errors=(AccountNotFound,))
async def read_key(call: Call, name: Name, key: Id) -> KeyView:
    """Read a key."""
    found = await call.services.keyring.keys(call.actor, name)
    return _view(one(found, lambda item: item.id, key))


@operations.add("DELETE", "/users/{name}/keys/{key}", access=Access.ACCOUNT, errors=(AccountNotFound,))
async def remove_key(call: Call, name: Name, key: Id) -> None:
    """Remove a key.

    It stops working at once.
    """
    await call.services.keyring.remove_key(call.actor, name, key)
