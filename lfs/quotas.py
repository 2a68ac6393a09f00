"""How many bytes of large files an owner may have, over all repositories.

A live link counts with the size of its object, whoever else has the same bytes; the trash does not count,
because its owner cannot empty it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import bindparam, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from core.access import Actor, require_site_admin
from core.audit import Action, record
from core.database import Database
from core.errors import AccountNotFound, RepositoryNotFound, Unprocessable
from core.lookup import require_account
from core.models import Account, LfsLink, LfsUpload, Repository
from core.settings import LfsSettings
from lfs.errors import QuotaExceeded
from lfs.objects import usage_where

_MAX_BYTES = 2**63 - 1
# Of one owner. Each has a row, and a directory or its like in the store, before the first byte.
_MOST_WAITING = 10_000


# Built once: every batch for an upload asks.
_OWNER = (
    select(Account.id, Account.name, Account.lfs_quota_bytes)
    .join(Repository, Repository.owner_id == Account.id)
    .where(Repository.id == bindparam("repository_id"))
)


@dataclass(frozen=True, slots=True)
class _Owner:
    id: int
    name: str
    lfs_quota_bytes: int | None


class Quotas:
    """0 bytes is no limit, everywhere."""

    def __init__(self, database: Database, settings: LfsSettings) -> None:
        self._database = database
        self._default = settings.quota_bytes

    async def require_room(self, repository_id: str, more_bytes: int) -> None:
        """Returns if the owner of the repository may have so many bytes more now; promises nothing for later.

        Raises:
            QuotaExceeded: with the `quota_bytes`.
            RepositoryNotFound: it was deleted meanwhile.
        """
        rows = await self._database.rows(_OWNER, {"repository_id": repository_id})
        if not rows:
            raise RepositoryNotFound("no such repository")
        owner = _Owner(*rows[0])
        if self._limit(owner):
            async with self._database.read() as session:
                await self._require(session, owner, more_bytes)

    async def reserve(
        self, session: AsyncSession, owner_id: int, repository_id: str, oid: str, size: int
    ) -> None:
        """Returns if the link to be written in this transaction fits; one that is live already does.

        Where there is a limit, transactions of one owner queue here until they end, so that two uploads
        cannot both take the last room. Raises `QuotaExceeded`.
        """
        owner = await self._queue(session, owner_id)
        if not self._limit(owner):
            return
        live = select(LfsLink.oid).where(
            LfsLink.repository_id == repository_id, LfsLink.oid == oid, LfsLink.trashed_at.is_(None)
        )
        if await session.scalar(live) is None:
            await self._require(session, owner, size)

    async def reserve_waiting(
        self, session: AsyncSession, owner_id: int, repository_id: str, sizes: Mapping[str, int]
    ) -> None:
        """Returns if uploads of these oids and sizes, begun in this transaction, may wait in the store.

        What waits is not the owner's yet, so a quota holds for it by itself: as much again. Raises
        `QuotaExceeded`; an upload that nobody goes on with counts until it is swept.
        """
        owner = await self._queue(session, owner_id)
        query = (
            select(func.count(), func.coalesce(func.sum(LfsUpload.size), 0))
            .join(Repository, Repository.id == LfsUpload.repository_id)
            .where(Repository.owner_id == owner_id)
            .where(or_(LfsUpload.repository_id != repository_id, LfsUpload.oid.not_in(sizes)))
        )
        count, waiting = (await session.execute(query)).one()
        if count + len(sizes) > _MOST_WAITING:
            raise QuotaExceeded(f"{owner.name} has too many unfinished uploads; finish or abort some of them")
        limit = self._limit(owner)
        if limit and int(waiting) + sum(sizes.values()) > limit:
            raise QuotaExceeded(
                f"the quota of {owner.name} for large files is {limit} bytes, and unfinished uploads "
                "fill it; finish or abort some of them",
                quota_bytes=limit,
            )

    async def limit_of(self, owner_id: int) -> int:
        """The bytes that a user or organisation may have; 0 is no limit. Raises `AccountNotFound`."""
        async with self._database.read() as session:
            owner = await session.get(Account, owner_id)
            if owner is None:
                raise AccountNotFound("no such account")
            return self._limit(owner)

    async def set(self, actor: Actor, owner_name: str, limit: int | None) -> None:
        """Gives an account a limit of its own in bytes; None is the one of the settings. For site admins.

        A limit below what the account has refuses uploads and takes nothing away.

        Raises:
            AuthenticationRequired, PermissionDenied: as `core.access.require_site_admin`.
            AccountNotFound, Unprocessable: no such account; no such number of bytes.
        """
        require_site_admin(actor)
        if limit is not None and not 0 <= limit <= _MAX_BYTES:
            raise Unprocessable("a quota is a number of bytes from 0, which is no limit, to 2^63-1")
        async with self._database.transaction() as session:
            owner = await require_account(session, owner_name, lock="update")
            before, owner.lfs_quota_bytes = owner.lfs_quota_bytes, limit
            record(session, actor, Action.QUOTA_SET, owner.name, bytes=limit, before=before)

    async def _queue(self, session: AsyncSession, owner_id: int) -> Account:
        """The owner; who has a limit is locked."""
        owner = await session.get_one(Account, owner_id)
        if self._limit(owner):
            # Who creates a repository for this owner meanwhile need not wait: no key changes.
            owner = await session.get_one(
                Account, owner_id, with_for_update={"key_share": True}, populate_existing=True
            )
        return owner

    def _limit(self, owner: Account | _Owner) -> int:
        return self._default if owner.lfs_quota_bytes is None else owner.lfs_quota_bytes

    async def _require(self, session: AsyncSession, owner: Account | _Owner, more_bytes: int) -> None:
        limit = self._limit(owner)
        if not limit or not more_bytes:
            return
        usage = await usage_where(session, Repository.owner_id == owner.id, LfsLink.trashed_at.is_(None))
        if usage.bytes + more_bytes > limit:
            # Not how much is used: that would tell collaborators about repositories they cannot see.
            raise QuotaExceeded(
                f"the quota of {owner.name} for large files is {limit} bytes; {more_bytes} more do not fit",
                quota_bytes=limit,
            )
