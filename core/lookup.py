"""From names to rows, redirects included. No rights are checked here."""

from collections.abc import Mapping
from typing import Literal

from sqlalchemy import Select, bindparam, select
from sqlalchemy.ext.asyncio import AsyncSession

from core.errors import AccountNotFound
from core.models import Account, AccountKind, AccountRedirect, Repository, RepositoryRedirect
from core.names import Address, is_account_name

# "share": nobody deletes or renames the account before the transaction ends. "update": nobody changes it.
Lock = Literal["share", "update"]


async def find_account(session: AsyncSession, name: str, *, lock: Lock | None = None) -> Account | None:
    """The account that is called `name`, or was and nobody took the name since; any case."""
    if not name.isascii() or not is_account_name(name := name.lower()):
        return None
    live = select(Account).where(Account.name == name)
    former = (
        select(Account)
        .join(AccountRedirect, AccountRedirect.account_id == Account.id)
        .where(AccountRedirect.name == name)
    )
    share = lock == "share"
    # Whoever waited for a lock saw neither the account that was renamed away meanwhile nor the one that took
    # its name, and with it the redirect: a lock asks once more, and then sees what was committed.
    for query in (live, former, live) if lock else (live, former):
        locked = query.with_for_update(of=Account, read=share, key_share=share) if lock else query
        account: Account | None = await session.scalar(locked)
        if account:
            return account
    return None


async def require_account(session: AsyncSession, name: str, *, lock: Lock | None = None) -> Account:
    """As `find_account`. Raises `AccountNotFound`."""
    account = await find_account(session, name, lock=lock)
    if account is None:
        raise AccountNotFound("no such account")
    return account


async def require_user(session: AsyncSession, name: str, *, lock: Lock | None = None) -> Account:
    """As `require_account`, and an organisation is not found either."""
    account = await require_account(session, name, lock=lock)
    if account.kind != AccountKind.USER:
        raise AccountNotFound(f"{account.name} is an organisation, not a user")
    return account


async def require_organisation(session: AsyncSession, name: str, *, lock: Lock | None = None) -> Account:
    """As `require_account`, and a user is not found either."""
    account = await require_account(session, name, lock=lock)
    if account.kind != AccountKind.ORGANISATION:
        raise AccountNotFound(f"{account.name} is a user, not an organisation")
    return account


async def find_repository(
    session: AsyncSession, address: Address, *, lock: bool = False
) -> tuple[Repository, str] | None:
    """The repository at `address` and its owner's name, both as they are called now.

    A live repository always comes before one that once had the address, under the owner's present or
    former name.
    """
    found = await _look(session, address, lock)
    if found is None and lock:  # as in `find_account`: it moved away while somebody else moved in
        found = await _look(session, address, lock)
    return found


async def _look(session: AsyncSession, address: Address, lock: bool) -> tuple[Repository, str] | None:
    names = {"owner": address.owner, "type": address.type, "name": address.name}
    found = await _first(session, _BY_ADDRESS, lock, names)
    if found:
        return found
    owner = await find_account(session, address.owner)
    if owner is None:
        return None
    if owner.name != address.owner:
        found = await _one(session, _repositories().where(Account.id == owner.id), address, lock)
        if found:
            return found
    moved = (
        _repositories()
        .join(RepositoryRedirect, RepositoryRedirect.repository_id == Repository.id)
        .where(
            RepositoryRedirect.owner_id == owner.id,
            RepositoryRedirect.type == address.type,
            RepositoryRedirect.name == address.name,
        )
    )
    return await _first(session, moved, lock)


def _repositories() -> Select[Repository, str]:
    return select(Repository, Account.name).join(Account, Repository.owner_id == Account.id)


# Built once, because nearly every request needs it.
_BY_ADDRESS = _repositories().where(
    Account.name == bindparam("owner"),
    Repository.type == bindparam("type"),
    Repository.name == bindparam("name"),
)


async def _one(
    session: AsyncSession, query: Select[Repository, str], address: Address, lock: bool
) -> tuple[Repository, str] | None:
    query = query.where(Repository.type == address.type, Repository.name == address.name)
    return await _first(session, query, lock)


async def _first(
    session: AsyncSession,
    query: Select[Repository, str],
    lock: bool,
    parameters: Mapping[str, str] | None = None,
) -> tuple[Repository, str] | None:
    if lock:
        query = query.with_for_update(of=Repository)
    row = (await session.execute(query, parameters)).one_or_none()
    return (row[0], row[1]) if row else None
