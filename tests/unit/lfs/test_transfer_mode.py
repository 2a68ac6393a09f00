"""When bytes go past the server, as the settings want it and as the store deserves it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from core.models import StoreKind
from core.settings import LfsSettings, Settings, StorageSettings
from lfs.stores import Stores
from lfs.transfer_mode import TransferMode, may_redirect
from storage.local import LocalStore
from storage.minio_store import MinioStore

# Nobody listens there.
NOWHERE = "127.0.0.1:1"


def settings(transfer: str, public: str) -> Settings:
    return Settings(
        lfs=msgspec.convert({"transfer": transfer}, LfsSettings),
        storage=StorageSettings(
            kind="minio",
            endpoint=NOWHERE,
            public_endpoint=public,
            access_key="key",
            secret_key="secret-key",
            secure=False,
        ),
    )


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[Stores]:
    local, minio = LocalStore(tmp_path), MinioStore(settings("auto", NOWHERE).storage)
    yield Stores({StoreKind.LOCAL: local, StoreKind.MINIO: minio}, StoreKind.MINIO)
    await local.close()
    await minio.close()


@pytest.mark.parametrize(
    ("transfer", "current", "public", "expected"),
    [
        ("proxy", StoreKind.MINIO, "s3.example", False),
        ("redirect", StoreKind.MINIO, "", True),
        ("redirect", StoreKind.LOCAL, "", True),
        ("auto", StoreKind.MINIO, "s3.example", True),
        ("auto", StoreKind.MINIO, "", False),
        ("auto", StoreKind.LOCAL, "s3.example", False),
    ],
)
def test_what_the_settings_want(transfer: str, current: StoreKind, public: str, expected: bool) -> None:
    assert may_redirect(settings(transfer, public), current) is expected


@pytest.mark.parametrize(
    ("transfer", "public"), [("proxy", NOWHERE), ("auto", "")], ids=["proxy", "no public endpoint"]
)
async def test_nothing_is_asked_where_nothing_is_wanted(stores: Stores, transfer: str, public: str) -> None:
    mode = TransferMode(settings(transfer, public), stores)
    async with asyncio.timeout(0):
        await mode.settle()
    assert not mode.redirects()


@pytest.mark.parametrize(("transfer", "expected"), [("auto", False), ("redirect", True)])
async def test_while_the_store_is_away_it_goes_on_asking(
    stores: Stores, transfer: str, expected: bool
) -> None:
    mode = TransferMode(settings(transfer, NOWHERE), stores)
    assert mode.redirects() is expected
    settling = asyncio.create_task(mode.settle())
    done, _ = await asyncio.wait([settling], timeout=1)
    assert not done
    settling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await settling
    assert mode.redirects() is expected
