"""What the commands about users and about organisations share."""

from core.accounts import AccountInfo
from core.errors import AccountNotFound
from core.models import AccountKind
from modelyard.cli.administration import PAGE, every
from modelyard.services import Services


async def list_accounts(services: Services, kind: AccountKind, search: str | None) -> list[AccountInfo]:
    """All accounts of a kind, by name."""

    async def page(last: AccountInfo | None) -> list[AccountInfo]:
        after = last.name if last else None
        return await services.accounts.list(kind=kind, search=search, limit=PAGE, after=after)

    return await every(page)


async def account_of_kind(services: Services, name: str, kind: AccountKind) -> AccountInfo:
    """The account called `name`, so that no command about users touches an organisation.

    Raises:
        AccountNotFound: there is none, or it is of the other kind.
    """
    account = await services.accounts.get(name)
    if account.kind is not kind:
        raise AccountNotFound(f"there is no {kind} {account.name}; the {account.kind} has that name")
    return account
