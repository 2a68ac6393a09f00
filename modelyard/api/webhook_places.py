"""Where webhooks are: the same operations below a repository, a user, an organisation, and the server."""

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, get_type_hints

from core.errors import AccountNotFound, ModelyardError
from core.models import AccountKind
from core.repositories import RepositoryInfo
from modelyard.api.call import Call
from modelyard.api.operation import REPOSITORY, Access, Handler, Operations
from modelyard.api.parameters import Name
from webhooks.scopes import SERVER, WebhookScope


class _Place(NamedTuple):
    """One of the four; `find` makes the scope, and its parameters are what the path of the place has."""

    name: str
    path: str
    access: Access
    errors: tuple[type[ModelyardError], ...]
    find: Callable[..., Awaitable[WebhookScope]]


async def _of_repository(_call: Call, repository: RepositoryInfo) -> WebhookScope:
    return WebhookScope(repository=repository.address)


async def _of_user(call: Call, user: Name) -> WebhookScope:
    return await _of_owner(call, user, AccountKind.USER)


async def _of_organisation(call: Call, organisation: Name) -> WebhookScope:
    return await _of_owner(call, organisation, AccountKind.ORGANISATION)


async def _of_owner(call: Call, name: str, kind: AccountKind) -> WebhookScope:
    account = await call.services.accounts.get(name)
    if account.kind is not kind:
        raise AccountNotFound(f"{account.name} is not of the kind {kind}")
    return WebhookScope(owner=account.name)


async def _of_server(_call: Call) -> WebhookScope:
    return SERVER


_OWNER = (AccountNotFound,)
_PLACES = (
    _Place("repository", REPOSITORY, Access.REPOSITORY_ADMIN, (), _of_repository),
    _Place("user", "/users/{user}", Access.ACCOUNT, _OWNER, _of_user),
    _Place("organisation", "/organisations/{organisation}", Access.ACCOUNT, _OWNER, _of_organisation),
    _Place("server", "", Access.SITE_ADMIN, (), _of_server),
)


def everywhere(
    operations: Operations,
    method: str,
    path: str,
    *,
    errors: tuple[type[ModelyardError], ...] = (),
    status: int | None = None,
) -> Callable[[Handler], Handler]:
    """Declares the decorated handler once per place, as `Operations.add` does; `path` comes below the place.

    The handler's parameters are the call, the `WebhookScope`, and then those of any handler. The place is
    written into its name, before `webhook`: `read_webhook` is `read_user_webhook` at users.
    """

    def declare(handler: Handler) -> Handler:
        for place in _PLACES:
            add = operations.add(
                method, place.path + path, access=place.access, errors=(*place.errors, *errors), status=status
            )
            add(_at(place, handler))
        return handler

    return declare


def _at(place: _Place, handler: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    call, _, *others = inspect.signature(handler).parameters.values()
    _, *segments = inspect.signature(place.find).parameters.values()

    async def handle(call: Call, **arguments: Any) -> Any:
        found = {one.name: arguments.pop(one.name) for one in segments}
        return await handler(call, await place.find(call, **found), **arguments)

    hints = {
        **get_type_hints(place.find, include_extras=True),
        **get_type_hints(handler, include_extras=True),
    }
    handle.__name__ = handler.__name__.replace("webhook", f"{place.name}_webhook", 1)
    handle.__doc__ = handler.__doc__
    handle.__annotations__ = hints
    vars(handle)["__signature__"] = inspect.Signature([call, *segments, *others])
    return handle
