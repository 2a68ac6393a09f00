"""Which URLs a batch answer has, over a store that signs and one that does not."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from core.access import ANONYMOUS
from core.database import Database
from core.models import ObjectFormat, RepositoryType, StoreKind, Visibility
from core.opening import RepositoryInfo
from core.settings import LfsSettings, StorageSettings
from lfs.actions import Actions
from lfs.batch import BatchRequest, Decision, Expected, Offered, Operation, Present, Refused
from lfs.direct import DirectUploads
from lfs.links import MAX_LINK_SECONDS, Link, Links, Use
from lfs.multipart import MultipartUploads
from lfs.objects import Objects, StoredObject
from lfs.quotas import Quotas
from lfs.stores import Stores
from lfs.uploads import Uploads
from storage.local import LocalStore
from storage.minio_store import MinioStore

NOW = 1_800_000_000
ACTOR = replace(ANONYMOUS, address="192.0.2.1")
REPOSITORY = RepositoryInfo(
    id="f" * 32,
    type=RepositoryType.DATASET,
    owner="ann",
    name="set",
    visibility=Visibility.PUBLIC,
    description="",
    default_branch="main",
    object_format=ObjectFormat.SHA1,
    refs_version=1,
    state="s",
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
    updated_at=datetime(2026, 1, 1, tzinfo=UTC),
)
SETTINGS = LfsSettings(link_seconds=100, slowest_bytes_per_second=10)
LINKS = Links(b"k" * 32)
DOWNLOAD = BatchRequest(Operation.DOWNLOAD, ())
UPLOAD = BatchRequest(Operation.UPLOAD, ())
BASE = "https://host.example/prefix"


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[Stores]:
    """A directory, and an S3 service that nobody answers for: signing is arithmetic."""
    far = StorageSettings(
        kind="minio", endpoint="s3.example:9000", access_key="key", secret_key="secret-key", secure=False
    )
    local, minio = LocalStore(tmp_path), MinioStore(far)
    yield Stores({StoreKind.LOCAL: local, StoreKind.MINIO: minio}, StoreKind.MINIO)
    await local.close()
    await minio.close()


def actions(stores: Stores, *, redirect: bool) -> Actions:
    database = Database("sqlite+aiosqlite:////nowhere/never-asked.db")
    uploads = Uploads(database, stores, Quotas(database, SETTINGS), SETTINGS)
    return Actions(
        stores,
        LINKS,
        DirectUploads(database, stores, uploads),
        MultipartUploads(database, stores, Objects(database), uploads, SETTINGS, direct=lambda: redirect),
        SETTINGS,
        redirects=lambda: redirect,
        clock=lambda: NOW,
    )


def offered(oid: str, size: int, store: StoreKind) -> Offered:
    return Offered(oid, size, StoredObject(oid, size, store, f"lfs/{oid}", damaged=False))


async def answer(made: Actions, request: BatchRequest, *decisions: Decision) -> Any:
    answered = await made.answer(REPOSITORY, ACTOR, request, decisions, BASE)
    return msgspec.json.decode(msgspec.json.encode(answered))


def link_of(action: dict[str, Any], path: str) -> Link:
    start, _, query = action["href"].partition("?")
    assert start == f"{BASE}/datasets/ann/set.git/info/lfs/{path}"
    return LINKS.verify(parse_qs(query)["link"][0], now=NOW)


async def test_every_kind_of_entry(stores: Stores) -> None:
    oid = "a" * 64
    answered = await answer(
        actions(stores, redirect=False),
        UPLOAD,
        Refused("x", -1, 422, "no"),
        Present("b" * 64, 5),
        Expected(oid, 7),
    )
    assert answered["transfer"] == "basic"
    assert answered["hash_algo"] == "sha256"
    refused, present, expected = answered["objects"]
    assert refused == {"oid": "x", "size": -1, "error": {"code": 422, "message": "no"}}
    assert present == {"oid": "b" * 64, "size": 5, "authenticated": True}
    assert (expected["oid"], expected["size"], expected["authenticated"]) == (oid, 7, True)
    upload = expected["actions"].pop("upload")
    assert expected["actions"] == {}
    assert upload["expires_in"] == 100
    assert link_of(upload, f"objects/{oid}") == Link(
        Use.UPLOAD, REPOSITORY.id, oid, 7, ACTOR, NOW + upload["expires_in"]
    )


@pytest.mark.parametrize("store", list(StoreKind))
async def test_downloads_through_the_server(stores: Stores, store: StoreKind) -> None:
    oid = "a" * 64
    answered = await answer(actions(stores, redirect=False), DOWNLOAD, offered(oid, 7, store))
    link = link_of(answered["objects"][0]["actions"]["download"], f"objects/{oid}")
    assert (link.use, link.oid, link.size) == (Use.DOWNLOAD, oid, 7)


async def test_downloads_past_the_server(stores: Stores) -> None:
    """An object that still lies in a store that signs nothing comes through the server."""
    near, far = "a" * 64, "b" * 64
    answered = await answer(
        actions(stores, redirect=True),
        DOWNLOAD,
        offered(near, 7, StoreKind.LOCAL),
        offered(far, 7, StoreKind.MINIO),
    )
    ours, theirs = (entry["actions"]["download"] for entry in answered["objects"])
    link_of(ours, f"objects/{near}")
    url = urlsplit(theirs["href"])
    assert url.netloc == "s3.example:9000"
    assert parse_qs(url.query)["X-Amz-Expires"] == [str(theirs["expires_in"])]
    assert "header" not in theirs


@pytest.mark.parametrize(
    ("sizes", "seconds"), [((), 100), ((9,), 100), ((1000, 1000), 300), ((10**12,), MAX_LINK_SECONDS)]
)
async def test_life(stores: Stores, sizes: tuple[int, ...], seconds: int) -> None:
    wanted = [offered(f"{number:064x}", size, StoreKind.LOCAL) for number, size in enumerate(sizes)]
    answered = await answer(actions(stores, redirect=False), DOWNLOAD, *wanted)
    for entry in answered["objects"]:
        assert entry["actions"]["download"]["expires_in"] == seconds
        link = link_of(entry["actions"]["download"], f"objects/{entry['oid']}")
        assert link.expires == NOW + seconds
