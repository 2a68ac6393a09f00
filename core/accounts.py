"""Accounts: users and organisations, their names, their life and their end."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from sqlalchemy import delete, exists, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from core.access import Actor, ActorKind, require_account_admin, require_account_scope, require_site_admin
from core.audit import Action, record
from core.database import Database
from core.errors import Conflict, InvalidCredentials, Unprocessable
from core.lookup import require_account, require_user
from core.models import (
    Account,
    AccountKind,
    AccountRedirect,
    BranchRule,
    Membership,
    Repository,
    Role,
    now,
)
from core.names import check_account_name
from core.organisations import require_other_owners
from core.passwords import Passwords
from core.settings import AuthSettings
from core.texts import checked_text
from core.unique import flush_or_exists

_EMAIL = re.compile(r"[^@\s<>\"]+@[^@\s<>\"]+")  # it stands in commits as `Name <email>`


@dataclass(frozen=True, slots=True)
class AccountInfo:
    """An account as it was when it was read. A face decides to whom it shows `email`."""

    id: int
    kind: AccountKind
    name: str
    full_name: str
    email: str
    is_admin: bool
    suspended_at: datetime | None
    created_at: datetime

    @classmethod
    def of(cls, account: Account) -> Self:
        return cls(
            id=account.id,
            kind=AccountKind(account.kind),
            name=account.name,
            full_name=account.full_name,
            email=account.email,
            is_admin=account.is_admin,
            suspended_at=account.suspended_at,
            created_at=account.created_at,
        )


class Accounts:
    """Names are taken in any case, and former names are followed."""

    def __init__(self, database: Database, auth: AuthSettings) -> None:
        self._database = database
        self._passwords = Passwords(auth)

    async def create_user(
        self,
        actor: Actor,
        name: str,
        *,
        password: str | None = None,
        full_name: str = "",
        email: str = "",
        is_admin: bool = False,
    ) -> AccountInfo:
        """A new user; without a password they use keys and tokens. For site administrators.

        Raises:
            AlreadyExists: the name is taken.
            InvalidName, Unprocessable: the name, the password or a text cannot be.
        """
        require_site_admin(actor)
        password_hash = await self._passwords.hash(password) if password is not None else None
        account = Account(
            kind=AccountKind.USER,
            name=check_account_name(name),
            full_name=checked_text(full_name, "full_name", 200),
            email=_checked_email(email),
            password_hash=password_hash,
            is_admin=is_admin,
        )
        async with self._database.transaction() as session:
            await _add(session, account)
            record(session, actor, Action.USER_CREATE, account.name, is_admin=is_admin)
            return AccountInfo.of(account)

    async def create_organisation(
        self, actor: Actor, name: str, *, owner: str | None = None, full_name: str = ""
    ) -> AccountInfo:
        """A new organisation with one owner: `owner`, or the actor. Others are named by site admins only.

        Raises:
            AlreadyExists: the name is taken.
            AccountNotFound: there is no such owner.
            InvalidName, PermissionDenied: the name cannot be; not a user's own credential.
        """
        if actor.kind is not ActorKind.SYSTEM:
            require_account_scope(actor)
        async with self._database.transaction() as session:
            user = await _first_owner(session, actor, owner)
            account = Account(
                kind=AccountKind.ORGANISATION,
                name=check_account_name(name),
                full_name=checked_text(full_name, "full_name", 200),
            )
            await _add(session, account)
            session.add(Membership(organisation_id=account.id, user_id=user.id, role=Role.ADMIN))
            record(session, actor, Action.ORGANISATION_CREATE, account.name, owner=user.name)
            return AccountInfo.of(account)

    async def get(self, name: str) -> AccountInfo:
        """Raises `AccountNotFound`."""
        async with self._database.read() as session:
            return AccountInfo.of(await require_account(session, name))

    async def list(
        self,
        *,
        kind: AccountKind | None = None,
        search: str | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> list[AccountInfo]:
        """By name; `after` is the last name of the page before; `search` is part of a name."""
        query = select(Account).order_by(Account.name).limit(limit)
        if kind is not None:
            query = query.where(Account.kind == kind)
        if search:
            text = checked_text(search, "search", 200).lower()
            full_name = func.lower(Account.full_name)
            query = query.where(
                or_(Account.name.contains(text, autoescape=True), full_name.contains(text, autoescape=True))
            )
        if after is not None:
            query = query.where(Account.name > checked_text(after, "cursor", 200))
        async with self._database.read() as session:
            return [AccountInfo.of(account) for account in await session.scalars(query)]

    async def count(self) -> int:
        """How many accounts there are: none means that nobody set this server up yet."""
        async with self._database.read() as session:
            return await session.scalar(select(func.count()).select_from(Account)) or 0

    async def update_user(
        self,
        actor: Actor,
        name: str,
        *,
        full_name: str | None = None,
        email: str | None = None,
        is_admin: bool | None = None,
    ) -> AccountInfo:
        """Changes what is not None, of a user or the full name of an organisation.

        Raises:
            PermissionDenied: neither their own account nor a site admin; `is_admin` is for those only.
            Conflict: nobody would be left to administer this server.
        """
        async with self._database.transaction() as session:
            if is_admin is False:
                await _lock_admins(session)
            account = await require_account(session, name, lock="update")
            await require_account_admin(session, actor, account)
            changes: dict[str, object] = {}
            if full_name is not None:
                account.full_name = checked_text(full_name, "full_name", 200)
                changes["full_name"] = account.full_name
            if email is not None:
                account.email = _checked_email(email)
                changes["email"] = account.email
            if is_admin is not None and is_admin != account.is_admin:
                require_site_admin(actor)
                _require_kind(account, AccountKind.USER)
                if not is_admin:
                    await _require_other_admins(session, account)
                account.is_admin = changes["is_admin"] = is_admin
            if changes:
                user = account.kind == AccountKind.USER
                action = Action.USER_UPDATE if user else Action.ORGANISATION_UPDATE
                record(session, actor, action, account.name, **changes)
            return AccountInfo.of(account)

    async def rename(self, actor: Actor, name: str, new_name: str) -> AccountInfo:
        """Gives an account another name; the old one leads here until somebody takes it.

        Raises:
            AlreadyExists: the new name is taken.
            InvalidName, PermissionDenied: the new name cannot be; somebody else's account.
        """
        async with self._database.transaction() as session:
            account = await require_account(session, name, lock="update")
            await require_account_admin(session, actor, account)
            former = account.name
            if new_name == former:
                return AccountInfo.of(account)
            account.name = check_account_name(new_name)
            await flush_or_exists(session, f"the name {new_name} is taken", name=new_name)
            await _drop_redirects(session, former, new_name)
            session.add(AccountRedirect(name=former, account_id=account.id))
            await _replace_pusher(session, former, new_name)
            user = account.kind == AccountKind.USER
            action = Action.USER_RENAME if user else Action.ORGANISATION_RENAME
            record(session, actor, action, new_name, previous=former)
            return AccountInfo.of(account)

    async def suspend(self, actor: Actor, name: str) -> AccountInfo:
        """Shuts a user out: password, tokens and keys stop working with the next request.

        Raises:
            Conflict: nobody would be left to administer this server.
        """
        require_site_admin(actor)
        async with self._database.transaction() as session:
            await _lock_admins(session)
            account = await require_user(session, name, lock="update")
            if account.suspended_at is None:
                await _require_other_admins(session, account)
                account.suspended_at = now()
                record(session, actor, Action.USER_SUSPEND, account.name)
            return AccountInfo.of(account)

    async def unsuspend(self, actor: Actor, name: str) -> AccountInfo:
        """Lets a suspended user in again, with what they had."""
        require_site_admin(actor)
        async with self._database.transaction() as session:
            account = await require_user(session, name, lock="update")
            if account.suspended_at is not None:
                account.suspended_at = None
                record(session, actor, Action.USER_UNSUSPEND, account.name)
            return AccountInfo.of(account)

    async def delete(self, actor: Actor, name: str) -> None:
        """Ends an account with its keys, tokens, memberships and redirects, at once.

        Raises:
            Conflict: it owns repositories, is the last owner of an organisation, or the last site admin.
            PermissionDenied: somebody else's account.
        """
        async with self._database.transaction() as session:
            await _lock_admins(session)
            account = await require_account(session, name, lock="update")
            await require_account_admin(session, actor, account)
            if await session.scalar(select(exists().where(Repository.owner_id == account.id))):
                raise Conflict(f"{account.name} still owns repositories; delete or transfer them first")
            user = account.kind == AccountKind.USER
            if user:
                await _require_other_admins(session, account)
                await require_other_owners(session, account)
                await _replace_pusher(session, account.name, None)
            record(session, actor, Action.USER_DELETE if user else Action.ORGANISATION_DELETE, account.name)
            await session.delete(account)


async def _first_owner(session: AsyncSession, actor: Actor, owner: str | None) -> Account:
    if owner is None:
        user = await session.get(Account, require_account_scope(actor))
        if user is None:
            raise InvalidCredentials("this account is suspended or deleted")
        return user
    user = await require_user(session, owner, lock="share")
    if user.id != actor.user_id:
        require_site_admin(actor)
    return user


async def _add(session: AsyncSession, account: Account) -> None:
    session.add(account)
    await flush_or_exists(session, f"the name {account.name} is taken", name=account.name)
    await _drop_redirects(session, account.name)


async def _drop_redirects(session: AsyncSession, *names: str) -> None:
    await session.execute(delete(AccountRedirect).where(AccountRedirect.name.in_(names)))


async def _lock_admins(session: AsyncSession) -> None:
    """Two administrators cannot remove each other at the same time: call it before any account is locked."""
    admins = select(Account.id).where(Account.is_admin).order_by(Account.id).with_for_update()
    await session.execute(admins)


async def _require_other_admins(session: AsyncSession, account: Account) -> None:
    """Raises `Conflict` if `account` is the only site administrator who can log in."""
    if not account.is_admin or account.suspended_at is not None:
        return
    others = select(Account.id).where(
        Account.is_admin, Account.suspended_at.is_(None), Account.id != account.id
    )
    if await session.scalar(others.limit(1)) is None:
        raise Conflict(f"{account.name} is the last administrator of this server")


async def _replace_pusher(session: AsyncSession, name: str, new_name: str | None) -> None:
    """Keeps branch rules true, which know users by name: whoever takes the name gets no right with it."""
    rules = select(BranchRule).where(BranchRule.pushers.is_not(None)).with_for_update()
    for rule in await session.scalars(rules):
        if rule.pushers and name in rule.pushers:
            kept = [pusher for pusher in rule.pushers if pusher != name]
            rule.pushers = [*kept, new_name] if new_name else kept


def _require_kind(account: Account, kind: AccountKind) -> None:
    if account.kind != kind:
        raise Unprocessable(f"{account.name} is not a {kind.value}")


def _checked_email(email: str) -> str:
    email = checked_text(email, "email", 254)
    if email and not _EMAIL.fullmatch(email):
        raise Unprocessable("this is not an e-mail address", field="email")
    return email
