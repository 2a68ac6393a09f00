"""`/users/{name}/tokens`: secrets for programs that act for a user."""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from core.errors import AccountNotFound, RepositoryNotFound, Unprocessable
from core.models import Scope
from core.names import parse_address
from core.tokens import TokenInfo
from modelyard.api.call import Call
from modelyard.api.cursors import Page, Window, one
from modelyard.api.operation import Access, Operations
from modelyard.api.parameters import Id, Name, Title

operations = Operations("tokens", "Secrets for programs that act for a user.")


class TokenView(msgspec.Struct, kw_only=True):
    """A token. `repository` is the path of the only one it is good for, or null.

    What is pushed with a token `for_runs` fires no rules, unless they ask for it (`from_runs`).
    """

    id: int
    name: str
    scope: Scope
    repository: str | None
    for_runs: bool
    expires_at: datetime | None
    last_used_at: datetime | None
    created_at: datetime


class MintedToken(TokenView, kw_only=True):
    """A new token with its secret, which is never shown again."""

    token: str


class NewToken(msgspec.Struct, forbid_unknown_fields=True):
    """A token to be: it may do at most what `scope` says, in `repository` (its path) or wherever you may.

    What is pushed with a token `for_runs` fires no rules, unless they ask for it (`from_runs`).
    """

    name: Title
    scope: Scope
    repository: Annotated[str, Meta(min_length=1, max_length=300)] | None = None
    expires_in_days: Annotated[int, Meta(ge=1, le=3650)] | None = None
    for_runs: bool = False


@operations.add("GET", "/users/{name}/tokens", access=Access.ACCOUNT, errors=(AccountNotFound,))
async def list_tokens(call: Call, name: Name, window: Window[int]) -> Page[TokenView]:
    """List a user's tokens, without their secrets.

    Your own, or anybody's for an administrator. Oldest first.
    """
    found = await call.services.keyring.tokens(call.actor, name)
    return window.page_of_all(found, _view, lambda token: token.id)


@operations.add(
    "POST",
    "/users/{name}/tokens",
    access=Access.ACCOUNT,
    status=201,
    errors=(AccountNotFound, RepositoryNotFound, Unprocessable),
)
async def mint_token(call: Call, name: Name, body: NewToken) -> MintedToken:
    """Make a token.

    Its secret is in this answer and nowhere else.
    """
    secret, info = await call.services.keyring.mint_token(
        call.actor,
        name,
        body.name,
        body.scope,
        repository=None if body.repository is None else parse_address(body.repository),
        expires_in_days=body.expires_in_days,
        for_runs=body.for_runs,
    )
    call.created("/users/{name}/tokens/{token}", name=info.user, token=info.id)
    call.headers["Cache-Control"] = "no-store"
    return MintedToken(**msgspec.structs.asdict(_view(info)), token=secret)


@operations.add("GET", "/users/{name}/tokens/{token}", access=Access.ACCOUNT, errors=(AccountNotFound,))
async def read_token(call: Call, name: Name, token: Id) -> TokenView:
    """Read a token, without its secret."""
    found = await call.services.keyring.tokens(call.actor, name)
    return _view(one(found, lambda item: item.id, token))


@operations.add("DELETE", "/users/{name}/tokens/{token}", access=Access.ACCOUNT, errors=(AccountNotFound,))
async def revoke_token(call: Call, name: Name, token: Id) -> None:
    """Revoke a token.

    It stops working at once.
    """
    await call.services.keyring.revoke_token(call.actor, name, token)


def _view(token: TokenInfo) -> TokenView:
    return msgspec.convert(token, TokenView, from_attributes=True)
