"""URLs that let clients talk to MinIO themselves: what they may do with one, and what they may not."""

import asyncio
import base64
import hashlib
import urllib.error
import urllib.request
import zlib
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest

from core.models import StoreKind
from core.settings import Settings, StorageSettings
from storage.build import build_store, configured_kinds
from storage.minio_store import MinioStore
from storage.protocol import ObjectNotFound, PartsNotFound, SignedPut, StoredPart
from tests.support.minio_server import MinioServer
from tests.support.stores import PART_BYTES, MinioWorld
from tests.support.streams import list_keys, noise, pieces, read_all

DATA = noise(100_000)
OTHER = noise(100_000, "other")
OID = hashlib.sha256(DATA).hexdigest()
TYPE = "application/octet-stream"


class Refused(Exception):
    def __init__(self, status: int, body: str) -> None:
        super().__init__(f"{status} {body}")
        self.status = status


def _request(
    method: str, url: str, body: bytes | None, headers: Mapping[str, str]
) -> tuple[bytes, Mapping[str, str]]:
    # urllib sends a content type of its own otherwise.
    request = urllib.request.Request(url, data=body, method=method, headers={"Content-Type": "", **headers})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        with error:
            raise Refused(error.code, error.read().decode()) from None


async def send(
    method: str, url: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> tuple[bytes, Mapping[str, str]]:
    return await asyncio.to_thread(_request, method, url, body, headers or {})


async def signed(minio: MinioWorld, key: str = "dir/k", oid: str = OID, size: int = len(DATA)) -> SignedPut:
    put = await minio.store.signed_put(key, seconds=60, sha256=oid, size=size, content_type=TYPE)
    assert put is not None
    return put


async def test_a_signed_put_becomes_an_object_that_the_store_has_hashed(minio: MinioWorld) -> None:
    put = await signed(minio)
    assert dict(put.headers) == {
        "content-type": TYPE,
        "x-amz-checksum-sha256": base64.b64encode(bytes.fromhex(OID)).decode(),
    }
    await send("PUT", put.url, DATA, put.headers)
    assert await list_keys(minio.store) == []
    for _ in range(2):
        found = await minio.store.finish_put("dir/k", sha256=OID)
        assert (found.key, found.size, found.sha256) == ("dir/k", len(DATA), OID)
    assert await read_all(minio.store, "dir/k") == DATA
    assert minio.leftovers("dir/k") == 0


async def test_an_empty_object_can_be_put(minio: MinioWorld) -> None:
    oid = hashlib.sha256(b"").hexdigest()
    put = await signed(minio, oid=oid, size=0)
    await send("PUT", put.url, b"", put.headers)
    assert (await minio.store.finish_put("dir/k", sha256=oid)).size == 0


REFUSED: dict[str, tuple[bytes, dict[str, str | None]]] = {
    "other bytes": (OTHER, {}),
    "fewer bytes": (DATA[:-1], {}),
    "more bytes": (DATA + b"x", {}),
    "no checksum": (DATA, {"x-amz-checksum-sha256": None}),
    "no content type": (DATA, {"content-type": None}),
    "another content type": (DATA, {"content-type": "text/html"}),
    "bytes and checksum of others": (
        OTHER,
        {"x-amz-checksum-sha256": base64.b64encode(hashlib.sha256(OTHER).digest()).decode()},
    ),
    "another kind of checksum": (
        OTHER,
        {
            "x-amz-checksum-sha256": None,
            "x-amz-checksum-crc32": base64.b64encode(zlib.crc32(OTHER).to_bytes(4, "big")).decode(),
        },
    ),
    "a copy of another object": (DATA, {"x-amz-copy-source": "SECRET"}),
    "an archive to extract": (DATA, {"x-amz-meta-snowball-auto-extract": "true"}),
}


@pytest.mark.parametrize("attack", REFUSED)
async def test_the_store_refuses_anything_else(minio: MinioWorld, attack: str) -> None:
    await minio.store.put("secret", pieces(OTHER))
    put = await signed(minio)
    body, changes = REFUSED[attack]
    headers = {**put.headers, **changes}
    if "x-amz-copy-source" in headers:
        headers["x-amz-copy-source"] = f"/contract/{minio.prefix}/secret"
    with pytest.raises(Refused):
        await send(
            "PUT", put.url, body, {name: value for name, value in headers.items() if value is not None}
        )
    with pytest.raises(ObjectNotFound):
        await minio.store.finish_put("dir/k", sha256=OID)
    assert await list_keys(minio.store) == ["secret"]
    await send("PUT", put.url, DATA, put.headers)  # the URL is not used up by that
    assert (await minio.store.finish_put("dir/k", sha256=OID)).sha256 == OID


async def test_what_got_past_the_store_all_the_same_does_not_become_visible(minio: MinioWorld) -> None:
    """MinIO checks no signature of a body with unsigned trailers; completing it, it compares the sum."""
    put = await signed(minio)
    digest = base64.b64encode(hashlib.sha256(OTHER).digest())
    body = b"%x\r\n%b\r\n0\r\nx-amz-checksum-sha256:%b\r\n\r\n" % (len(OTHER), OTHER, digest)
    trailers = {
        "content-type": TYPE,
        "content-encoding": "aws-chunked",
        "x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        "x-amz-decoded-content-length": str(len(OTHER)),
        "x-amz-trailer": "x-amz-checksum-sha256",
    }
    await send("PUT", put.url, body, trailers)
    with pytest.raises(ObjectNotFound):
        await minio.store.finish_put("dir/k", sha256=OID)
    assert await list_keys(minio.store) == []


async def test_a_url_is_worth_nothing_after_the_end(minio: MinioWorld) -> None:
    await minio.store.put("secret", pieces(OTHER))
    first, second = await signed(minio), await signed(minio)
    for put in (first, second):
        await send("PUT", put.url, DATA, put.headers)
    await minio.store.finish_put("dir/k", sha256=OID)
    before = await asyncio.to_thread(minio.client().stat_object, "contract", f"{minio.prefix}/dir/k")
    for put in (first, second):
        for headers in (
            {},
            {"content-encoding": "gzip"},
            {"x-amz-copy-source": f"/contract/{minio.prefix}/secret"},
        ):
            with pytest.raises(Refused) as caught:
                await send("PUT", put.url, DATA, {**put.headers, **headers})
            assert caught.value.status == 404
    assert await read_all(minio.store, "dir/k") == DATA
    after = await asyncio.to_thread(minio.client().stat_object, "contract", f"{minio.prefix}/dir/k")
    assert (before.etag, before.last_modified) == (after.etag, after.last_modified)


async def test_one_of_several_urls_is_enough(minio: MinioWorld) -> None:
    puts = [await signed(minio) for _ in range(3)]
    await send("PUT", puts[1].url, DATA, puts[1].headers)
    results = await asyncio.gather(*(minio.store.finish_put("dir/k", sha256=OID) for _ in range(3)))
    assert {(found.size, found.sha256) for found in results} == {(len(DATA), OID)}
    assert minio.leftovers("dir/k") == 0


async def test_uploads_of_other_keys_are_not_touched(minio: MinioWorld) -> None:
    """To S3 a key is a prefix when uploads are listed."""
    other = await signed(minio, "dir/k-2")
    mine = await signed(minio)
    for put in (other, mine):
        await send("PUT", put.url, DATA, put.headers)
    await minio.store.finish_put("dir/k", sha256=OID)
    with pytest.raises(ObjectNotFound):
        await minio.store.stat("dir/k-2")
    await minio.store.finish_put("dir/k-2", sha256=OID)


async def test_what_lies_there_otherwise_proves_nothing(minio: MinioWorld) -> None:
    await minio.store.put("dir/k", pieces(DATA))
    with pytest.raises(ObjectNotFound):
        await minio.store.finish_put("dir/k", sha256=OID)


async def test_stat_tells_the_sha256_that_the_store_computed_and_no_other(minio: MinioWorld) -> None:
    await minio.store.put("plain", pieces(DATA))
    assert (await minio.store.stat("plain")).sha256 is None
    digest = base64.b64encode(bytes.fromhex(OID)).decode()
    await asyncio.to_thread(
        minio.client()._put_object,
        "contract",
        f"{minio.prefix}/summed",
        DATA,
        {"x-amz-checksum-sha256": digest},
    )
    assert (await minio.store.stat("summed")).sha256 == OID
    put = await signed(minio)
    await send("PUT", put.url, DATA, put.headers)
    await minio.store.finish_put("dir/k", sha256=OID)
    assert (await minio.store.stat("dir/k")).sha256 is None  # the sum of its one part is another


async def test_signed_parts_make_an_object(minio: MinioWorld) -> None:
    store = minio.store
    data = noise(PART_BYTES + 10)
    parts_id = await store.begin_parts("k")
    parts: list[StoredPart] = []
    urls: list[str] = []
    for number, body in ((1, data[:PART_BYTES]), (2, data[PART_BYTES:])):
        url = await store.signed_part("k", parts_id, number, seconds=60, size=len(body))
        assert url is not None
        urls.append(url)
        _, headers = await send("PUT", url, body)
        parts.append(StoredPart(number, len(body), headers["ETag"].strip('"')))
    assert list(await store.list_parts("k", parts_id)) == parts
    await store.complete_parts("k", parts_id, parts)
    assert await read_all(store, "k") == data
    with pytest.raises(Refused, match="NoSuchUpload"):
        await send("PUT", urls[1], data[PART_BYTES:])
    with pytest.raises(PartsNotFound):
        await store.signed_part("k", "a\nb", 1, seconds=60, size=1)
    with pytest.raises(ValueError, match="number of a part"):
        await store.signed_part("k", parts_id, 0, seconds=60, size=1)


@pytest.mark.parametrize("sent", [0, 9, 11, 1_000_000], ids=str)
async def test_a_signed_part_is_good_for_its_size_only(minio: MinioWorld, sent: int) -> None:
    parts_id = await minio.store.begin_parts("k")
    url = await minio.store.signed_part("k", parts_id, 1, seconds=60, size=10)
    assert url is not None
    with pytest.raises(Refused, match="SignatureDoesNotMatch"):
        await send("PUT", url, bytes(sent))
    assert await minio.store.list_parts("k", parts_id) == []
    await send("PUT", url, bytes(10))
    assert [part.size for part in await minio.store.list_parts("k", parts_id)] == [10]


async def test_bytes_of_the_right_sum_but_another_size_are_refused(minio: MinioWorld) -> None:
    put = await signed(minio, size=len(DATA) + 1)
    with pytest.raises(Refused, match="SignatureDoesNotMatch"):
        await send("PUT", put.url, DATA, put.headers)


async def test_signed_gets_work_without_credentials(minio: MinioWorld) -> None:
    await minio.store.put("dir/k", pieces(DATA))
    url = await minio.store.signed_get("dir/k", seconds=10**9)
    assert url is not None
    body, headers = await send("GET", url)
    assert body == DATA
    assert "Content-Disposition" not in headers
    part, _ = await send("GET", url, headers={"Range": "bytes=10-19"})
    assert part == DATA[10:20]


@pytest.mark.parametrize(
    ("filename", "expected"),
    [
        ("model.safetensors", 'attachment; filename="model.safetensors"'),
        ("a b (1).bin", 'attachment; filename="a b (1).bin"'),
        ("ümlaut.bin", "attachment; filename=\"_mlaut.bin\"; filename*=UTF-8''%C3%BCmlaut.bin"),
        ('a"; x="\r\nSet-Cookie: a=b', None),
        ("a&response-content-type=text/html", None),
    ],
)
async def test_a_download_has_the_name_that_was_asked_for(
    minio: MinioWorld, filename: str, expected: str | None
) -> None:
    await minio.store.put("k", pieces(b"x"))
    url = await minio.store.signed_get("k", seconds=60, filename=filename)
    assert url is not None
    _, headers = await send("GET", url)
    if expected is not None:
        assert headers["Content-Disposition"] == expected
    assert "Set-Cookie" not in headers
    assert headers["Content-Type"] == TYPE


async def test_signed_urls_are_for_one_object_and_method(minio: MinioWorld) -> None:
    await minio.store.put("mine", pieces(b"mine"))
    await minio.store.put("other", pieces(b"other"))
    get = await minio.store.signed_get("mine", seconds=60)
    put = await signed(minio)
    assert get is not None
    tampered = [
        ("GET", get.replace("/mine?", "/other?"), None),
        ("PUT", get, b"evil"),
        ("DELETE", get, None),
        ("GET", get + "&response-content-type=text/html", None),
        ("PUT", put.url.replace("/dir/k?", "/mine?"), DATA),
        ("PUT", put.url.replace("partNumber=1", "partNumber=2"), DATA),
        ("PUT", put.url.replace("partNumber=1&", ""), DATA),
    ]
    for method, url, body in tampered:
        with pytest.raises(Refused) as caught:
            await send(method, url, body, put.headers if body == DATA else None)
        assert caught.value.status == 403
    assert await read_all(minio.store, "mine") == b"mine"


async def test_signed_urls_expire(minio: MinioWorld) -> None:
    await minio.store.put("k", pieces(b"x"))
    get = await minio.store.signed_get("k", seconds=1)
    put = await minio.store.signed_put("k", seconds=0, sha256=OID, size=len(DATA), content_type=TYPE)
    assert get is not None
    assert put is not None
    await asyncio.sleep(2.1)
    with pytest.raises(Refused, match="expired"):
        await send("GET", get)
    with pytest.raises(Refused, match="expired"):
        await send("PUT", put.url, DATA, put.headers)


async def test_urls_name_the_public_endpoint(minio: MinioWorld, minio_server: MinioServer) -> None:
    public = f"localhost:{minio_server.port}"
    store = MinioStore(msgspec.structs.replace(minio.settings, public_endpoint=public))
    await store.put("k", pieces(DATA))
    get = await store.signed_get("k", seconds=60)
    put = await store.signed_put("p", seconds=60, sha256=OID, size=len(DATA), content_type=TYPE)
    part = await store.signed_part("k", "x", 1, seconds=60, size=1)
    assert get is not None
    assert put is not None
    assert part is not None
    assert {urlsplit(url).netloc for url in (get, put.url, part)} == {public}
    assert (await send("GET", get))[0] == DATA
    await send("PUT", put.url, DATA, put.headers)
    assert (await store.finish_put("p", sha256=OID)).size == len(DATA)
    await store.close()


@pytest.mark.parametrize(
    ("public", "expected"),
    [
        ("", "http://127.0.0.1:1/"),
        ("minio.example:9000", "http://minio.example:9000/"),
        ("https://minio.example", "https://minio.example/"),
        ("http://minio.example:80", "http://minio.example/"),
        ("https://[::1]:9000", "https://[::1]:9000/"),
    ],
)
async def test_the_public_endpoint_may_speak_tls_alone(public: str, expected: str) -> None:
    settings = StorageSettings(
        kind="minio",
        endpoint="127.0.0.1:1",
        public_endpoint=public,
        access_key="a",
        secret_key="b",
        secure=False,
    )
    store = MinioStore(settings)
    get = await store.signed_get("k", seconds=60)
    assert get is not None
    assert get.startswith(expected + "modelyard/k?")
    await store.close()


async def test_both_stores_can_be_open_at_once(minio: MinioWorld, tmp_path: Path) -> None:
    storage = msgspec.structs.replace(minio.settings, path=str(tmp_path / "objects"))
    settings = Settings(storage=storage)
    assert configured_kinds(settings) == (StoreKind.MINIO, StoreKind.LOCAL)
    stores = {kind: build_store(settings, kind) for kind in configured_kinds(settings)}
    for kind, store in stores.items():
        await store.put("k", pieces(kind.value.encode()))
    for kind, store in stores.items():
        assert await read_all(store, "k") == kind.value.encode()
        assert store.signs == (kind is StoreKind.MINIO)
        await store.close()
    local = Settings(storage=msgspec.structs.replace(storage, kind="local"))
    assert configured_kinds(local) == (StoreKind.LOCAL, StoreKind.MINIO)
    assert configured_kinds(Settings()) == (StoreKind.LOCAL,)
