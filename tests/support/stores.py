"""Object stores under test, each with what only a test may know of it."""

from pathlib import Path
from typing import Protocol
from uuid import uuid4

from minio import Minio

from storage.local import LocalStore
from storage.minio_store import MinioStore
from storage.protocol import ObjectStore
from tests.support.minio_server import ACCESS_KEY, SECRET_KEY, MinioServer

PART_BYTES = 5 * 1024**2


class World(Protocol):
    """A store under test."""

    @property
    def store(self) -> ObjectStore: ...

    def leftovers(self, key: str) -> int:
        """How many unfinished uploads of `key` take up room."""
        ...


class LocalWorld:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = LocalStore(root, low_bytes=0)

    def leftovers(self, key: str) -> int:
        return sum(len(names(self.root / name)) for name in ("tmp", "parts") if (self.root / name).exists())


class MinioWorld:
    def __init__(self, server: MinioServer) -> None:
        self.prefix = f"tests/{uuid4().hex}"
        self._server = server
        self.settings = server.settings(bucket="contract", prefix=self.prefix, part_bytes=PART_BYTES)
        self.store = MinioStore(self.settings)

    def leftovers(self, key: str) -> int:
        listed = self.client()._list_multipart_uploads("contract", prefix=f"{self.prefix}/{key}")
        return len(listed.uploads)

    def client(self) -> Minio:
        """The SDK, to look behind the store."""
        return Minio(
            self._server.endpoint,
            access_key=ACCESS_KEY,
            secret_key=SECRET_KEY,
            secure=False,
            region="us-east-1",
        )


def names(directory: Path) -> list[str]:
    """What is in a directory, in order."""
    return sorted(path.name for path in directory.iterdir())
