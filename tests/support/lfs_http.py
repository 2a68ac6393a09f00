"""The LFS API as a client sees it that sends every request itself.

async with running_lfs(settings) as server:
    ann = await server.client("ann", "ann/model")
    oid = await ann.upload(b"some bytes")
    assert (await ann.download(oid)).body == b"some bytes"
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from core.access import SYSTEM
from core.models import Visibility
from core.names import parse_address
from core.settings import LfsSettings, StorageSettings
from modelyard.services import Services
from tests.support.api import ApiServer, Caller, Reply, api_settings, running_api
from tests.support.lfs_world import oid_of

MEDIA = "application/vnd.git-lfs+json"


def said(reply: Reply) -> dict[str, Any]:
    """A refusal in the words of the LFS API, without what differs from request to request."""
    assert reply.headers["Content-Type"].startswith(MEDIA), reply
    body = dict(reply.json)
    assert body["message"]
    assert body.pop("request_id") == reply.headers["X-Request-Id"]
    return body


@dataclass(slots=True)
class LfsCaller:
    """Somebody at one repository."""

    caller: Caller
    repository: str

    @property
    def base(self) -> str:
        return f"{self.caller.base}/{self.repository}.git/info/lfs"

    async def __call__(self, method: str, path: str, body: Any = None, **rest: Any) -> Reply:
        """One request; `path` is a whole URL or comes below `info/lfs/`."""
        headers = {"Accept": MEDIA, **rest.pop("headers", {})}
        if body is not None:
            headers.setdefault("Content-Type", f"{MEDIA}; charset=utf-8")
        url = path if path.startswith("http") else f"{self.base}/{path}"
        return await self.caller(method, url, body, headers=headers, **rest)

    async def batch(self, operation: str, *objects: tuple[str, int], **more: Any) -> Reply:
        wanted = [{"oid": oid, "size": size} for oid, size in objects]
        body = {"operation": operation, "objects": wanted, "transfers": ["basic"], **more}
        return await self("POST", "objects/batch", {k: v for k, v in body.items() if v is not ...})

    async def objects(self, operation: str, *objects: tuple[str, int], **more: Any) -> list[dict[str, Any]]:
        """The entries of a batch that must succeed."""
        reply = await self.batch(operation, *objects, **more)
        assert reply.status == 200, reply
        entries: list[dict[str, Any]] = reply.json["objects"]
        return entries

    async def href(self, operation: str, oid: str, size: int) -> str:
        """The link to upload or download one object."""
        (entry,) = await self.objects(operation, (oid, size))
        return str(entry["actions"][operation]["href"])

    async def put(self, href: str, data: bytes, **rest: Any) -> Reply:
        """Sends bytes to a link, and nothing that says who."""
        nobody = Caller(self.caller.session, self.caller.base)
        return await nobody("PUT", href, data=data, **rest)

    async def get(self, href: str, headers: dict[str, str] | None = None, method: str = "GET") -> Reply:
        """Asks a link, and says nothing about who asks."""
        return await Caller(self.caller.session, self.caller.base)(method, href, headers=headers)

    async def upload(self, data: bytes) -> str:
        """Uploads what the repository must not have yet; returns its oid."""
        oid = oid_of(data)
        reply = await self.put(await self.href("upload", oid, len(data)), data)
        assert reply.status == 200, reply
        return oid

    async def download(self, oid: str, size: int) -> Reply:
        return await self.get(await self.href("download", oid, size))


@dataclass(slots=True)
class LfsServer:
    """A server in this process."""

    api: ApiServer

    @property
    def services(self) -> Services:
        return self.api.services

    async def user(self, name: str) -> Caller:
        return await self.api.user(name)

    async def repository(self, path: str, visibility: Visibility = Visibility.PRIVATE) -> str:
        """A new, empty repository; returns its id."""
        address = parse_address(path)
        made = await self.services.repositories.create(SYSTEM, address, visibility=visibility)
        return made.id

    async def at_new_repository(self, owner: str, name: str = "model") -> LfsCaller:
        """A new user at a new private repository of theirs."""
        caller = await self.user(owner)
        await self.repository(f"{owner}/{name}")
        return LfsCaller(caller, f"{owner}/{name}")


@asynccontextmanager
async def running_lfs(
    directory: Path,
    database_url: str,
    *,
    lfs: LfsSettings | None = None,
    storage: StorageSettings | None = None,
    **http: Any,
) -> AsyncIterator[LfsServer]:
    """The whole application on a free port of the loopback interface."""
    settings = api_settings(directory, database_url, **http)
    settings = msgspec.structs.replace(settings, lfs=lfs or settings.lfs, storage=storage or settings.storage)
    async with running_api(settings) as api:
        await api.services.store.check()
        yield LfsServer(api)
