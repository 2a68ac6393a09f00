"""Whether a store takes writes that nobody signed: found out at a real MinIO, bare and behind a proxy."""

import asyncio
import hashlib
import http.client
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

from storage import minio_forgeries
from storage.minio_store import MinioStore
from storage.protocol import Signatures
from tests.support.minio_server import MinioServer
from tests.support.nginx import nginx_before_minio
from tests.support.ports import free_port
from tests.support.stores import LocalWorld, MinioWorld
from tests.support.streams import list_keys, pieces, read_all

DATA = b"0123456789" * 20_000
OID = hashlib.sha256(DATA).hexdigest()


@asynccontextmanager
async def at(minio: MinioWorld, public: str, **changes: Any) -> AsyncIterator[MinioStore]:
    """The same bucket with another way in for clients."""
    store = MinioStore(msgspec.structs.replace(minio.settings, public_endpoint=public, **changes))
    yield store
    await store.close()


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory, minio_server: MinioServer) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("proxy") / "nginx"
    with nginx_before_minio(folder, minio_server.endpoint, "contract") as endpoint:
        yield endpoint


async def send(method: str, url: str, body: bytes, *headers: tuple[str, str]) -> tuple[int, bytes]:
    """The status and the body of the answer; a header may come twice."""
    return await asyncio.to_thread(_send, method, url, body, headers)


def _send(method: str, url: str, body: bytes, headers: tuple[tuple[str, str], ...]) -> tuple[int, bytes]:
    parts = urlsplit(url)
    with closing(http.client.HTTPConnection(parts.netloc, timeout=60)) as connection:
        connection.putrequest(method, url.partition(parts.netloc)[2], skip_accept_encoding=True)
        for name, value in (*headers, ("content-length", str(len(body)))):
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, answer.read()


async def test_minio_alone_takes_forgeries(minio: MinioWorld) -> None:
    report = await minio.store.examine_signatures()
    assert report.signatures is Signatures.IGNORED
    assert "unsigned trailers" in report.reason
    assert await list_keys(minio.store) == []


async def test_behind_the_proxy_it_refuses_them(minio: MinioWorld, nginx: str) -> None:
    async with at(minio, nginx) as store:
        report = await store.examine_signatures()
        assert (report.signatures, report.reason) == (Signatures.CHECKED, "it refuses forged writes")
        assert await list_keys(store) == []


async def test_behind_the_proxy_signed_urls_work(minio: MinioWorld, nginx: str) -> None:
    async with at(minio, nginx) as store:
        signed = await store.signed_put(
            "k", seconds=60, sha256=OID, size=len(DATA), content_type="application/octet-stream"
        )
        assert signed is not None
        assert (await send("PUT", signed.url, DATA, *signed.headers.items()))[0] == 200
        assert (await store.finish_put("k", sha256=OID)).size == len(DATA)
        parts_id = await store.begin_parts("parts")
        part = await store.signed_part("parts", parts_id, 1, seconds=60, size=len(DATA))
        assert part is not None
        assert (await send("PUT", part, DATA))[0] == 200
        await store.complete_parts("parts", parts_id, await store.list_parts("parts", parts_id))
        assert await read_all(store, "parts") == DATA
        get = await store.signed_get("k", seconds=60)
        assert get is not None
        assert (await send("GET", get, b""))[1] == DATA
        assert await send("GET", get, b"", ("Range", "bytes=5-14")) == (206, DATA[5:15])


TRAILERS = dict(minio_forgeries._TRAILER_HEADERS)
SUM_HEADER = "x-amz-content-sha256"
OTHERS = [(name, value) for name, value in TRAILERS.items() if name != SUM_HEADER]
ANNOUNCED = TRAILERS[SUM_HEADER]


@pytest.mark.parametrize(
    "announcements",
    [
        [(SUM_HEADER, ANNOUNCED)],
        [("X-AMZ-CONTENT-SHA256", ANNOUNCED)],
        [(SUM_HEADER, f" {ANNOUNCED}\t")],
        [(SUM_HEADER, ANNOUNCED), (SUM_HEADER, "UNSIGNED-PAYLOAD")],
        [(SUM_HEADER, "UNSIGNED-PAYLOAD"), (SUM_HEADER, ANNOUNCED)],
        [(SUM_HEADER, ""), (SUM_HEADER, ANNOUNCED)],
        [("x_amz_content_sha256", ANNOUNCED)],
        [(SUM_HEADER, f"{ANNOUNCED}, UNSIGNED-PAYLOAD")],
        [(SUM_HEADER, f"UNSIGNED-PAYLOAD, {ANNOUNCED}")],
        [(SUM_HEADER, ANNOUNCED.lower())],
    ],
)
async def test_no_spelling_gets_past_the_proxy(
    minio: MinioWorld, nginx: str, announcements: list[tuple[str, str]]
) -> None:
    async with at(minio, nginx) as store:
        await store.put("mine", pieces(DATA))
        for key in ("mine", "new"):
            get = await store.signed_get(key, seconds=60)
            assert get is not None
            body = minio_forgeries._TRAILER_BODY
            status, _ = await send("PUT", get, body, *OTHERS, *announcements)
            assert status in {400, 403}
        assert await list_keys(store) == ["mine"]
        assert await read_all(store, "mine") == DATA


@pytest.mark.parametrize("sources", [["/{0}"], ["{0}"], ["%2F{0}"], ["", "/{0}"], ["/{0}", ""]])
async def test_no_link_to_write_reads_another_object(
    minio: MinioWorld, nginx: str, sources: list[str]
) -> None:
    async with at(minio, nginx) as store:
        await store.put("theirs", pieces(DATA))
        parts_id = await store.begin_parts("mine")
        part = await store.signed_part("mine", parts_id, 1, seconds=60, size=len(b"other"))
        assert part is not None
        path = urlsplit(part).path.strip("/").replace("mine", "theirs")
        headers = [("x-amz-copy-source", source.format(path)) for source in sources]
        await send("PUT", part, b"other", *headers)
        assert [found.size for found in await store.list_parts("mine", parts_id)] == [5]


async def test_nothing_else_gets_past_the_proxy(minio: MinioWorld, nginx: str) -> None:
    for method, path in (
        ("DELETE", "/contract/x"),
        ("POST", "/contract/x?uploads"),
        ("GET", "/"),
        ("GET", "/minio/health/live"),
        ("PUT", "/other/x"),
        ("GET", "/contract/../other/x"),
    ):
        status, _ = await send(method, f"http://{nginx}{path}", b"")
        assert status == 403, path


async def test_a_bucket_that_anybody_may_write_to(minio: MinioWorld, nginx: str) -> None:
    """The proxy is no help against that."""
    bucket = "open-to-all"
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": ["*"]},
                "Action": ["s3:PutObject"],
                "Resource": [f"arn:aws:s3:::{bucket}/*"],
            }
        ],
    }
    async with at(minio, "", bucket=bucket) as store:
        await store.check()
        await asyncio.to_thread(minio.client().set_bucket_policy, bucket, json.dumps(policy))
        # Without the forgery that MinIO falls for anyway, as behind the proxy.
        forged = minio_forgeries._FORGED
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(minio_forgeries, "_FORGED", forged[1:])
            report = await store.examine_signatures()
        assert report.signatures is Signatures.IGNORED
        assert "anybody" in report.reason
        assert await list_keys(store) == []


@asynccontextmanager
async def stub(answer: bytes | None) -> AsyncIterator[str]:
    """A server that says the same to everybody, or nothing."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if answer is None:
            await reader.read()
        elif answer:
            writer.write(b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n" % answer)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"403 Forbidden", "to a signed write it answers 403"),
        (b"200 OK", "to a forged write it answers 200"),
        (b"502 Bad Gateway", "to a forged write it answers 502"),
        (b"307 Temporary Redirect\r\nLocation: http://127.0.0.1:1/", "to a forged write it answers 307"),
        (b"", "to a forged write it gives no answer (ProtocolError)"),
    ],
)
async def test_what_does_not_lead_to_the_store_proves_nothing(
    minio: MinioWorld, answer: bytes, reason: str
) -> None:
    async with stub(answer) as public, at(minio, public) as store:
        report = await store.examine_signatures()
        assert (report.signatures, report.reason) == (Signatures.UNKNOWN, reason)


async def test_silence_does_not_hold_it_up(minio: MinioWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minio_forgeries, "ANSWER_SECONDS", 0.5)
    async with stub(None) as public, at(minio, public) as store:
        report = await store.examine_signatures()
        assert report.signatures is Signatures.UNKNOWN
        assert "ReadTimeoutError" in report.reason, "its own patience ended, and not that of who asked"


@pytest.mark.parametrize("public", ["127.0.0.1:1", "https://127.0.0.1:1", "no-such-host.invalid", "x" * 70])
async def test_an_endpoint_out_of_reach_is_unknown(minio: MinioWorld, public: str) -> None:
    async with at(minio, public) as store:
        report = await store.examine_signatures()
        assert report.signatures is Signatures.UNKNOWN
        assert "no answer" in report.reason


async def test_a_store_out_of_reach_is_unknown(minio: MinioWorld) -> None:
    async with stub(b"403 Forbidden") as public, at(minio, public, endpoint="127.0.0.1:1") as store:
        report = await store.examine_signatures()
        assert report.signatures is Signatures.UNKNOWN
        assert "cannot be reached" in report.reason


async def test_a_verdict_holds_and_ignorance_does_not(
    minio: MinioWorld, minio_server: MinioServer, tmp_path: Path
) -> None:
    port = free_port()
    async with at(minio, f"127.0.0.1:{port}") as store:
        assert (await store.examine_signatures()).signatures is Signatures.UNKNOWN
        with nginx_before_minio(tmp_path / "nginx", minio_server.endpoint, "contract", port=port):
            reports = await asyncio.gather(*(store.examine_signatures() for _ in range(3)))
            assert {report.signatures for report in reports} == {Signatures.CHECKED}
        assert (await store.examine_signatures()).signatures is Signatures.CHECKED


async def test_being_cancelled_it_ends_and_leaves_nothing(minio: MinioWorld) -> None:
    async with stub(None) as public, at(minio, public) as store:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await store.examine_signatures()
        assert await list_keys(store) == []


async def test_a_directory_is_out_of_reach(local: LocalWorld) -> None:
    assert (await local.store.examine_signatures()).signatures is Signatures.CHECKED
