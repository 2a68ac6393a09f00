"""Memory stays flat whatever moves (invariant I8): the server and its children, against the idle server.

What is counted is the sum of resident memory (Rss), in which every child counts shared pages again. That is
stricter than what they really take; what that is (Pss) is told when the test fails.
"""

import asyncio
import hashlib
import struct
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

import pytest
from aiohttp import ClientSession, ClientTimeout

from tests.support.gauge import MIB, assert_flat, watched
from tests.support.git import Git
from tests.support.soundness import refs_of
from tests.support.streams import noise
from tests.support.wire import ZERO, commit_body, entry_head, oid_of, push_request, read_report, tree_body
from tests.support.yard import Yard

BLOB_BYTES = 100 * MIB


def write_push(file: BinaryIO, blobs: int) -> tuple[str, int]:
    """Writes the body of a push of one commit with big incompressible blobs; returns commit and size."""
    payload = noise(BLOB_BYTES - 8)
    entries = []
    contents = []
    for number in range(blobs):
        head = struct.pack(">Q", number)
        digest = hashlib.sha1(b"blob %d\0" % BLOB_BYTES + head)
        digest.update(payload)
        contents.append(head)
        entries.append(("100644", f"w{number:02}", digest.hexdigest()))
    tree = tree_body(entries)
    commit = commit_body(oid_of("tree", tree))
    tip = oid_of("commit", commit)
    pack = hashlib.sha1()

    def write(data: bytes) -> None:
        pack.update(data)
        file.write(data)

    file.write(push_request([(ZERO, tip, "refs/heads/main")]))
    write(b"PACK" + struct.pack(">II", 2, blobs + 2))
    for kind, body in ((1, commit), (2, tree)):
        write(entry_head(kind, len(body)) + zlib.compress(body))
    for head in contents:
        write(entry_head(3, BLOB_BYTES))
        stored = zlib.compressobj(0)
        for piece in (head, payload):
            write(stored.compress(piece))
        write(stored.flush())
    file.write(pack.digest())
    return tip, file.tell()


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while piece := await asyncio.to_thread(file.read, MIB):
            yield piece


@pytest.mark.slow
async def test_push_of_one_and_a_half_gigabytes(yard: Yard, tmp_path: Path) -> None:
    body = tmp_path / "body"
    with body.open("wb") as file:
        tip, size = await asyncio.to_thread(write_push, file, 15)
    assert size > 1500 * 1000**2
    path = await yard.new_repository()
    await asyncio.to_thread(yard.git(yard.folder).refs, yard.url(path))
    with watched(yard.server) as gauge:
        async with (
            ClientSession(timeout=ClientTimeout(total=240)) as session,
            session.post(
                f"{yard.url(path)}/git-receive-pack",
                data=_pieces(body),
                headers={
                    "Content-Type": "application/x-git-receive-pack-request",
                    "Content-Length": str(size),
                },
            ) as response,
        ):
            report = read_report(await response.read())
    body.unlink()
    assert report.ok, report
    assert await refs_of(yard.server, path) == {"refs/heads/main": tip}
    assert_flat(gauge)


@pytest.mark.slow
async def test_eight_clones_of_a_hundred_megabytes(yard: Yard) -> None:
    path = await yard.new_repository()
    work = yard.git(yard.new_folder())
    work("init", "-q", ".")
    files = {f"big{number}": noise(28 * MIB, f"big{number}") for number in range(3)}
    files |= {f"small{number}": noise(MIB, f"small{number}") for number in range(16)}
    tip = await asyncio.to_thread(work.commit, files)
    await asyncio.to_thread(work, "push", "-q", yard.url(path), "main")
    clients = [yard.git(yard.new_folder()) for _ in range(8)]
    with watched(yard.server) as gauge:
        await asyncio.gather(
            *(
                asyncio.to_thread(_clone, git, yard.ssh_url(path) if number % 2 else yard.url(path))
                for number, git in enumerate(clients)
            )
        )
    assert [git("rev-parse", "HEAD") for git in clients] == [tip] * 8
    assert_flat(gauge)


def _clone(git: Git, address: str) -> None:
    git("-c", "pack.threads=1", "clone", "-q", "--bare", address, ".")
