"""The part of the composition root that is about large files."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from core.database import Database
from core.models import StoreKind
from core.repositories import Repositories
from core.settings import Settings
from lfs.actions import Actions
from lfs.direct import DirectUploads
from lfs.downloads import Downloads
from lfs.links import Links
from lfs.locks import Locks
from lfs.multipart import MultipartUploads
from lfs.objects import Objects
from lfs.quotas import Quotas
from lfs.service import LfsService
from lfs.stores import Stores
from lfs.transfer_mode import TransferMode
from lfs.uploads import Uploads
from storage.build import build_store, configured_kinds
from storage.protocol import ObjectStore


@dataclass(frozen=True, slots=True)
class LargeFiles:
    """What the faces, the command line and the workers need for large files."""

    service: LfsService
    stores: Stores
    mode: TransferMode
    objects: Objects
    quotas: Quotas
    uploads: Uploads
    direct: DirectUploads
    parts: MultipartUploads
    links: Links
    locks: Locks


@asynccontextmanager
async def open_large_files(
    settings: Settings,
    sealing_key: bytes,
    database: Database,
    repositories: Repositories,
    store: ObjectStore,
) -> AsyncIterator[LargeFiles]:
    """Closes what it made. `store`: the one of `[storage] kind`, which stays the caller's.

    Raises `SettingsError`: `[lfs] store` names a store that `[storage]` does not describe.
    """
    async with AsyncExitStack() as stack:
        stores = await _open_stores(settings, store, stack)
        objects, quotas = Objects(database), Quotas(database, settings.lfs)
        uploads = Uploads(database, stores, quotas, settings.lfs)
        stack.push_async_callback(uploads.close)
        mode = TransferMode(settings, stores)
        direct = DirectUploads(database, stores, uploads)
        parts = MultipartUploads(database, stores, objects, uploads, settings.lfs, direct=mode.redirects)
        stack.push_async_callback(parts.close)
        links, locks = Links(sealing_key), Locks(database)
        service = LfsService(
            database,
            repositories,
            objects,
            Downloads(objects, stores),
            quotas,
            uploads,
            direct,
            Actions(stores, links, direct, parts, settings.lfs, redirects=mode.redirects),
            links,
            locks,
            settings.lfs,
            anonymous_read=settings.auth.anonymous_read,
        )
        yield LargeFiles(
            service=service,
            stores=stores,
            mode=mode,
            objects=objects,
            quotas=quotas,
            uploads=uploads,
            direct=direct,
            parts=parts,
            links=links,
            locks=locks,
        )


async def _open_stores(settings: Settings, store: ObjectStore, stack: AsyncExitStack) -> Stores:
    """Every store that `[storage]` describes: objects may lie in another one than new ones go to."""
    own = StoreKind(settings.storage.kind)
    stores = {own: store}
    for kind in configured_kinds(settings):
        if kind is not own:
            stores[kind] = build_store(settings, kind)
            stack.push_async_callback(stores[kind].close)
    current = StoreKind(settings.lfs.store or own)
    if current not in stores:
        stores[current] = build_store(settings, current)  # raises: it is not described
    return Stores(stores, current)
