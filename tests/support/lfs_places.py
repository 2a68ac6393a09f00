"""Servers for tests of large files: every way in which their bytes can be kept and travel."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from tests.support.git import Git
from tests.support.git_lfs import LfsClient
from tests.support.minio_server import MinioServer
from tests.support.server import running_server
from tests.support.yard import Yard

Storage = Literal["local", "proxy", "redirect"]
STORAGES: tuple[Storage, ...] = ("local", "proxy", "redirect")


@dataclass(frozen=True)
class Place:
    """A server, and where the bytes of large files go: its own disk, MinIO behind it, or MinIO beside it."""

    storage: Storage
    yard: Yard
    minio: MinioServer | None

    @property
    def netloc(self) -> str:
        """Host and port of the server."""
        return urlsplit(self.yard.server.http).netloc

    @property
    def bytes_netloc(self) -> str:
        """Host and port to which clients over HTTP send bytes."""
        if self.storage == "redirect":
            assert self.minio is not None
            return self.minio.endpoint
        return self.netloc

    def client(self, client: LfsClient, cwd: Path | None = None) -> Git:
        """Git with this git-lfs, as ann."""
        return client.over(self.yard.git(cwd or self.yard.new_folder()))

    def url(self, path: str) -> str:
        """The HTTP address; ann's password comes from her credential helper."""
        return self.yard.server.url(f"{path}.git")


class Places:
    """Makes servers as they are asked for, and keeps them."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._made: dict[tuple[Storage, bool], Place] = {}
        self._minio: MinioServer | None = None

    async def get(self, storage: Storage, *, tls: bool = False) -> Place:
        """The server of that kind."""
        if (storage, tls) not in self._made:
            name = f"{storage}-{'https' if tls else 'http'}"
            self._made[storage, tls] = await self.make(name, storage, tls=tls)
        return self._made[storage, tls]

    async def make(
        self, name: str, storage: Storage, *, tls: bool = False, env: Mapping[str, str] | None = None
    ) -> Place:
        """A new server, with settings of its own; it ends with the others."""
        minio = await self.minio() if storage != "local" else None
        server = running_server(
            self._folder / name, tls=tls, env={**storage_environment(storage, minio, name), **(env or {})}
        )
        await asyncio.to_thread(self._stack.enter_context, server)
        yard = await Yard.open(server, self._folder / f"{name}-clients")
        return Place(storage, yard, minio)

    async def minio(self) -> MinioServer:
        """The one behind or beside all servers that use one."""
        return await asyncio.to_thread(self._started_minio)

    def _started_minio(self) -> MinioServer:
        if self._minio is None:
            self._minio = self._stack.enter_context(MinioServer(self._folder / "minio"))
        return self._minio


def storage_environment(storage: Storage, minio: MinioServer | None, bucket: str) -> dict[str, str]:
    """Settings of a server that keeps large files in this way."""
    if minio is None:
        return {}
    return {**minio.environment(bucket=bucket), "MODELYARD_LFS__TRANSFER": storage}


@contextmanager
def lfs_places(folder: Path) -> Iterator[Places]:
    """Servers that end with the block."""
    with ExitStack() as stack:
        yield Places(folder, stack)
