"""Organisations: who belongs to them, and as what."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from core.access import Actor, require_account_admin
from core.audit import Action, record
from core.database import Database
from core.errors import AccountNotFound, Conflict
from core.lookup import require_organisation, require_user
from core.models import Account, Membership, Role


@dataclass(frozen=True, slots=True)
class Member:
    """A user in an organisation."""

    organisation: str
    user: str
    role: Role
    since: datetime


class Organisations:
    """Members and their roles. Organisations themselves are made and ended by `Accounts`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def members(self, organisation: str) -> list[Member]:
        """By name. Raises `AccountNotFound`."""
        async with self._database.read() as session:
            account = await require_organisation(session, organisation)
            query = (
                select(Account.name, Membership.role, Membership.created_at)
                .join(Membership, Membership.user_id == Account.id)
                .where(Membership.organisation_id == account.id)
                .order_by(Account.name)
            )
            return [
                Member(account.name, name, Role(role), since)
                for name, role, since in await session.execute(query)
            ]

    async def organisations_of(self, user: str) -> list[Member]:
        """By name. Raises `AccountNotFound`."""
        async with self._database.read() as session:
            account = await require_user(session, user)
            query = (
                select(Account.name, Membership.role, Membership.created_at)
                .join(Membership, Membership.organisation_id == Account.id)
                .where(Membership.user_id == account.id)
                .order_by(Account.name)
            )
            return [
                Member(name, account.name, Role(role), since)
                for name, role, since in await session.execute(query)
            ]

    async def set_member(self, actor: Actor, organisation: str, user: str, role: Role) -> Member:
        """Adds a user, or changes their role. For owners of the organisation.

        Raises:
            AccountNotFound: no such organisation or user.
            Conflict: the organisation would be left without an owner.
        """
        async with self._database.transaction() as session:
            member = await require_user(session, user, lock="share")
            # The lock makes changes of one organisation queue, so an owner stays whatever happens at once.
            account = await require_organisation(session, organisation, lock="update")
            await require_account_admin(session, actor, account)
            membership = await session.get(Membership, (account.id, member.id))
            if membership is None:
                membership = Membership(organisation_id=account.id, user_id=member.id, role=role)
                session.add(membership)
            elif membership.role != role:
                if role is not Role.ADMIN:
                    await _require_another_owner(session, account, member)
                membership.role = role
            await session.flush()
            record(session, actor, Action.MEMBER_SET, account.name, user=member.name, role=role.value)
            return Member(account.name, member.name, role, membership.created_at)

    async def remove_member(self, actor: Actor, organisation: str, user: str) -> None:
        """Takes a user out. For owners of the organisation, and for the user.

        Raises:
            AccountNotFound: no such organisation, or not a member.
            Conflict: the organisation would be left without an owner.
        """
        async with self._database.transaction() as session:
            account = await require_organisation(session, organisation, lock="update")
            member = await require_user(session, user)
            await require_account_admin(session, actor, member if member.id == actor.user_id else account)
            membership = await session.get(Membership, (account.id, member.id))
            if membership is None:
                raise AccountNotFound(f"{member.name} is not a member of {account.name}")
            await _require_another_owner(session, account, member)
            record(session, actor, Action.MEMBER_REMOVE, account.name, user=member.name)
            await session.delete(membership)


async def require_other_owners(session: AsyncSession, user: Account) -> None:
    """Raises `Conflict` if any organisation would be left without an owner when `user` goes."""
    owned = (
        select(Account)
        .join(Membership, Membership.organisation_id == Account.id)
        .where(Membership.user_id == user.id, Membership.role == Role.ADMIN)
        .order_by(Account.id)
        .with_for_update(of=Account)
    )
    for organisation in await session.scalars(owned):
        await _require_another_owner(session, organisation, user)


async def _require_another_owner(session: AsyncSession, organisation: Account, user: Account) -> None:
    others = select(Membership.user_id).where(
        Membership.organisation_id == organisation.id,
        Membership.role == Role.ADMIN,
        Membership.user_id != user.id,
    )
    if await session.scalar(others.limit(1)) is None:
        raise Conflict(f"{user.name} is the last owner of {organisation.name}")
