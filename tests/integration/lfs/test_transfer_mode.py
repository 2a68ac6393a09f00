"""A store that is examined while its proxy is not there yet."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from core.models import StoreKind
from core.settings import Settings
from lfs import transfer_mode
from lfs.stores import Stores
from lfs.transfer_mode import TransferMode
from storage.minio_store import MinioStore
from tests.support.minio_server import MinioServer
from tests.support.nginx import nginx_before_minio
from tests.support.ports import free_port


async def test_a_proxy_that_starts_later(
    minio: MinioServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer_mode, "RETRY_SECONDS", 0.05)
    port = free_port()
    storage = msgspec.structs.replace(minio.settings(bucket="later"), public_endpoint=f"127.0.0.1:{port}")
    store = MinioStore(storage)
    await store.check()
    mode = TransferMode(Settings(storage=storage), Stores({StoreKind.MINIO: store}, StoreKind.MINIO))
    async with asyncio.TaskGroup() as group:
        settling = group.create_task(mode.settle())
        await asyncio.sleep(0.5)
        assert (settling.done(), mode.redirects()) == (False, False)
        with nginx_before_minio(tmp_path / "nginx", minio.endpoint, "later", port=port):
            async with asyncio.timeout(60):
                await settling
    assert mode.redirects()
    await store.close()
