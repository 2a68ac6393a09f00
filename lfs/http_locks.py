"""The lock API over HTTP.

https://github.com/git-lfs/git-lfs/blob/main/docs/api/locking.md
"""

import msgspec
from aiohttp import web

from core.access import Permission
from lfs.bodies import read_body
from lfs.errors import InvalidBatch
from lfs.http_face import PREFIX, Face, lock_json, reply
from lfs.locks import DEFAULT_LIMIT


class LfsLocks:
    """The routes of locks."""

    def __init__(self, face: Face) -> None:
        self._face = face
        self._service = face.service
        self._locks = face.service.locks

    def routes(self) -> list[web.RouteDef]:
        answering = self._face.answering
        return [
            web.post(f"{PREFIX}/locks", answering(self._create)),
            web.get(f"{PREFIX}/locks", answering(self._list), allow_head=False),
            web.post(f"{PREFIX}/locks/verify", answering(self._verify)),
            web.post(f"{PREFIX}/locks/{{id}}/unlock", answering(self._unlock)),
        ]

    async def _create(self, request: web.Request) -> web.Response:
        repository, actor = await self._face.limited(request, Permission.WRITE)
        wanted = await self._face.read_struct(request, _NewLock)
        lock = await self._locks.create(repository.id, actor, wanted.path, _ref(wanted.ref))
        return reply({"lock": lock_json(lock)}, status=201)

    async def _list(self, request: web.Request) -> web.Response:
        repository, _ = await self._face.limited(request, Permission.READ)
        query = request.query
        locks, cursor = await self._locks.list(
            repository.id,
            path=query.get("path"),
            id=query.get("id"),
            ref=query.get("refspec"),
            limit=_limit(query.get("limit")),
            cursor=query.get("cursor") or None,
        )
        return reply({"locks": [lock_json(lock) for lock in locks], **_following(cursor)})

    async def _verify(self, request: web.Request) -> web.Response:
        repository, actor = await self._face.limited(request, Permission.WRITE)
        asked = read_body(await self._face.read_json(request) or b"{}", _Verification)
        ours, theirs, cursor = await self._locks.verify(
            repository.id,
            actor,
            ref=_ref(asked.ref),
            limit=DEFAULT_LIMIT if asked.limit is None else asked.limit,
            cursor=asked.cursor or None,
        )
        answer = {"ours": [*map(lock_json, ours)], "theirs": [*map(lock_json, theirs)]}
        return reply({**answer, **_following(cursor)})

    async def _unlock(self, request: web.Request) -> web.Response:
        repository, actor = await self._face.limited(request, Permission.WRITE)
        asked = read_body(await self._face.read_json(request) or b"{}", _Unlock)
        force = bool(asked.force)
        may_force = force and await self._service.administers(actor, repository)
        lock = await self._locks.unlock(
            repository.id, actor, request.match_info["id"], force=force, may_force=may_force
        )
        return reply({"lock": lock_json(lock)})


class _Ref(msgspec.Struct, frozen=True):
    name: str | None = None


class _NewLock(msgspec.Struct, frozen=True):
    path: str
    ref: _Ref | None = None


class _Verification(msgspec.Struct, frozen=True):
    ref: _Ref | None = None
    cursor: str | None = None
    limit: int | None = None


class _Unlock(msgspec.Struct, frozen=True):
    force: bool | None = None


def _ref(ref: _Ref | None) -> str | None:
    return (ref.name or None) if ref else None


def _limit(text: str | None) -> int:
    if not text:
        return DEFAULT_LIMIT
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise InvalidBatch("the limit must be a number")
    return int(text)


def _following(cursor: str | None) -> dict[str, str]:
    return {"next_cursor": cursor} if cursor else {}
