"""The LFS API over HTTP, as a thin adapter of `LfsService`.

https://github.com/git-lfs/git-lfs/blob/main/docs/api/README.md
"""

from collections.abc import Iterable

from aiohttp import web

from core.access import Permission
from core.errors import ModelyardError
from lfs.batch import Operation, parse_batch
from lfs.http_face import PREFIX, Face, reply
from lfs.http_locks import LfsLocks
from lfs.http_transfers import LfsTransfers, TransferObserver


class LfsHttp:
    """All LFS routes."""

    def __init__(
        self,
        face: Face,
        *,
        max_batch_objects: int,
        observer: TransferObserver | None = None,
        more: Iterable[web.RouteDef] = (),
    ) -> None:
        """`more`: the routes of other transfers."""
        self._face = face
        self._max_objects = max_batch_objects
        self._transfers = LfsTransfers(face, observer)
        self._locks = LfsLocks(face)
        self._more = list(more)

    def routes(self) -> list[web.RouteDef]:
        """What to add to an application, before any route that takes every path."""
        return [
            web.post(f"{PREFIX}/objects/batch", self._face.answering(self._batch)),
            *self._transfers.routes(),
            *self._locks.routes(),
            *self._more,
        ]

    async def _batch(self, request: web.Request) -> web.Response:
        actor = await self._face.counted(request)
        body = await self._face.read_json(request)
        try:
            batch = parse_batch(body, max_objects=self._max_objects)
        except ModelyardError:
            # Rights come first: whoever may not see the repository learns nothing, whatever they send.
            await self._face.open(request, actor, Permission.READ)
            raise
        writes = batch.operation is Operation.UPLOAD
        repository = await self._face.open(request, actor, Permission.WRITE if writes else Permission.READ)
        return reply(await self._face.service.batch(repository, actor, batch, self._face.base_url(request)))
