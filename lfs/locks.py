"""File locks: who alone may change a path of a repository.

A lock holds on every branch, whatever ref the client named when it made it. Nothing here asks for rights:
the faces do, by opening the repository. Every query names the repository, so that the id of a lock is worth
nothing anywhere else.
"""

import unicodedata
from base64 import urlsafe_b64decode, urlsafe_b64encode
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Self, TypeAlias

from sqlalchemy import Select, bindparam, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from core.access import Actor, ActorKind
from core.audit import Action, record
from core.database import Database
from core.errors import InvalidCursor, PermissionDenied, RepositoryNotFound
from core.models import Account, LfsLock, Repository
from core.names import is_valid_ref
from core.opening import RepositoryInfo
from lfs.errors import InvalidBatch, LockExists, LockNotFound

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000
# An index row of PostgreSQL holds about 2,700 bytes, and the unique index has the whole path in it.
MAX_PATH_BYTES = 2048
# FOR NO KEY UPDATE and FOR KEY SHARE: neither waits for rows that only refer to the locked one.
_WRITING = {"key_share": True}
_SHARED = {"read": True, "key_share": True}
# A deploy key is nobody: every lock is another one's.
_OF_OTHERS = (
    select(LfsLock.path, Account.name)
    .join(Account, LfsLock.owner_id == Account.id)
    .where(
        LfsLock.repository_id == bindparam("repository_id"),
        LfsLock.owner_id.is_distinct_from(bindparam("user_id")),
    )
)


@dataclass(frozen=True, slots=True)
class Lock:
    """`owner` is the account's present name; `ref` is what the client named, if anything."""

    id: str
    path: str
    ref: str | None
    owner: str
    locked_at: datetime

    @classmethod
    def of(cls, lock: LfsLock, owner: str) -> Self:
        return cls(lock.id, lock.path, lock.ref, owner, lock.locked_at)


# Some locks by path, and the cursor of those that follow, if any do.
Page: TypeAlias = tuple[list[Lock], str | None]
# Ours, theirs, and the cursor.
Sides: TypeAlias = tuple[list[Lock], list[Lock], str | None]
_Rows: TypeAlias = list[tuple[LfsLock, str]]


class Locks:
    """At most one per path of a repository; they go with their repository and with their owner."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, repository_id: str, actor: Actor, path: str, ref: str | None) -> Lock:
        """Locks a path for the actor. Whether there is such a file does not matter.

        Raises:
            PermissionDenied: the actor is no user; a lock needs somebody to ask.
            InvalidBatch: no file of a repository can have this path, or no ref this name.
            LockExists: somebody holds it, perhaps the actor; `error.lock` is that lock.
            RepositoryNotFound: it was deleted meanwhile.
        """
        owner_id = _require_user(actor)
        _check_path(path)
        if ref is not None and not (_is_storable(ref) and is_valid_ref(ref)):
            raise InvalidBatch("this is not the full name of a ref, as in refs/heads/main")
        async with self._database.transaction() as session:
            # Whoever locks in the same repository waits here, and then sees what was locked.
            if await session.get(Repository, repository_id, with_for_update=_WRITING) is None:
                raise RepositoryNotFound("no such repository")
            taken = (await session.execute(_locks(repository_id).where(LfsLock.path == path))).one_or_none()
            if taken is not None:
                raise LockExists(f"{path} is locked by {taken[1]} already", Lock.of(*taken))
            owner = await session.get(Account, owner_id, with_for_update=_SHARED)
            if owner is None:
                raise PermissionDenied("this account was deleted")
            lock = LfsLock(repository_id=repository_id, path=path, ref=ref, owner_id=owner_id)
            session.add(lock)
            await session.flush()
            return Lock.of(lock, owner.name)

    async def list(
        self,
        repository_id: str,
        *,
        path: str | None = None,
        id: str | None = None,  # noqa: A002 - as git-lfs calls it
        ref: str | None = None,
        limit: int = DEFAULT_LIMIT,
        cursor: str | None = None,
    ) -> Page:
        """At most `limit` locks, by path; below 1 means the default, and above `MAX_LIMIT` that.

        `ref` chooses the locks that were made for this ref or for none. It is ignored together with `path`
        or `id`: clients always send the branch they are on, and must find a lock from any branch.

        Raises:
            InvalidCursor: no answer gave this cursor.
        """
        if not all(_is_storable(text) for text in (path, id, ref) if text is not None):
            return [], None
        query = _locks(repository_id)
        if path is not None:
            query = query.where(LfsLock.path == path)
        if id is not None:
            query = query.where(LfsLock.id == id)
        if ref is not None and path is None and id is None:
            query = query.where(or_(LfsLock.ref == ref, LfsLock.ref.is_(None)))
        found, following = await self._page(query, limit, cursor)
        return [Lock.of(lock, owner) for lock, owner in found], following

    async def verify(
        self,
        repository_id: str,
        actor: Actor,
        *,
        ref: str | None = None,
        limit: int = DEFAULT_LIMIT,
        cursor: str | None = None,
    ) -> Sides:
        """As `list`: the actor's locks, and everybody else's. Whatever the `ref`, every lock counts.

        Raises:
            InvalidCursor: no answer gave this cursor.
        """
        found, following = await self._page(_locks(repository_id), limit, cursor)
        ours = [Lock.of(lock, owner) for lock, owner in found if lock.owner_id == actor.user_id]
        theirs = [Lock.of(lock, owner) for lock, owner in found if lock.owner_id != actor.user_id]
        return ours, theirs, following

    async def unlock(
        self,
        repository_id: str,
        actor: Actor,
        id: str,  # noqa: A002 - as git-lfs calls it
        *,
        force: bool,
        may_force: bool,
    ) -> Lock:
        """Takes a lock away and returns what it was. `may_force`: the actor administers the repository.

        Taking somebody else's is recorded in the audit log.

        Raises:
            LockNotFound: the repository has no such lock.
            PermissionDenied: it is somebody else's, and the actor did not force or may not.
        """
        if not _is_storable(id):
            raise LockNotFound("no such lock")
        async with self._database.transaction() as session:
            query = _locks(repository_id).where(LfsLock.id == id).with_for_update(of=LfsLock)
            row = (await session.execute(query)).one_or_none()
            if row is None:
                raise LockNotFound("no such lock")
            lock, owner = row
            if lock.owner_id != actor.user_id:
                await _require_force(session, actor, lock, owner, force, may_force)
            await session.delete(lock)
            return Lock.of(lock, owner)

    async def held_by_others(self, repository_id: str, actor: Actor) -> dict[str, str]:
        """Every path that the actor should not change, and who holds it."""
        names = {"repository_id": repository_id, "user_id": actor.user_id}
        return dict(await self._database.rows(_OF_OTHERS, names))

    async def _page(
        self, query: Select[LfsLock, str], limit: int, cursor: str | None
    ) -> tuple[_Rows, str | None]:
        limit = min(limit, MAX_LIMIT) if limit > 0 else DEFAULT_LIMIT
        if cursor is not None:
            query = query.where(LfsLock.path > _read_cursor(cursor))
        async with self._database.read() as session:
            rows = await session.execute(query.order_by(LfsLock.path).limit(limit + 1))
            found = [(lock, owner) for lock, owner in rows]
        if len(found) <= limit:
            return found, None
        return found[:limit], _write_cursor(found[limit - 1][0].path)


def _locks(repository_id: str) -> Select[LfsLock, str]:
    query = select(LfsLock, Account.name).join(Account, LfsLock.owner_id == Account.id)
    return query.where(LfsLock.repository_id == repository_id)


async def _require_force(
    session: AsyncSession, actor: Actor, lock: LfsLock, owner: str, force: bool, may_force: bool
) -> None:
    if not force:
        raise PermissionDenied(f"{owner} holds this lock; only an administrator can take it, with --force")
    if not may_force:
        raise PermissionDenied(f"{owner} holds this lock; only an administrator of the repository may force")
    query = select(Repository, Account.name).join(Account, Repository.owner_id == Account.id)
    repository, name = (await session.execute(query.where(Repository.id == lock.repository_id))).one()
    target = RepositoryInfo.of(repository, name).path
    record(session, actor, Action.LOCK_FORCE, target, path=lock.path, owner=owner, lock=lock.id)


def _require_user(actor: Actor) -> int:
    if actor.kind is not ActorKind.USER or actor.user_id is None:
        raise PermissionDenied(f"a lock belongs to a user, and {actor.name} is none")
    return actor.user_id


def _check_path(path: str) -> None:
    """Raises `InvalidBatch` unless Git could have a file of this name."""
    if not _is_storable(path):
        raise InvalidBatch("the path is not text")
    if not path or len(path.encode()) > MAX_PATH_BYTES:
        raise InvalidBatch(f"a path has 1 to {MAX_PATH_BYTES} bytes")
    if any(unicodedata.category(character) == "Cc" for character in path):
        raise InvalidBatch("the path holds control characters")
    if any(name in {"", ".", ".."} or name.lower() == ".git" for name in path.split("/")):
        raise InvalidBatch("the path must be relative to the root of the repository, as Git writes it")


def _is_storable(text: str) -> bool:
    """Whether a database can hold the text at all."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _write_cursor(path: str) -> str:
    return urlsafe_b64encode(path.encode()).decode().rstrip("=")


def _read_cursor(cursor: str) -> str:
    with suppress(ValueError):  # no base64, or not of text
        path = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4)).decode()
        if path and "\0" not in path and _write_cursor(path) == cursor:
            return path
    raise InvalidCursor("this cursor was not given by a list of locks; start again without it")
