"""Raw requests about large files to a real server, and the proof that they left nothing behind."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tests.support.lfs_soundness import LfsState, lfs_state
from tests.support.lfs_world import oid_of
from tests.support.raw_http import Reply, basic, request
from tests.support.streams import noise
from tests.support.yard import Yard

MEDIA = {"Content-Type": "application/vnd.git-lfs+json", "Accept": "application/vnd.git-lfs+json"}
DATA = noise(300_000, "hostile")
OID = oid_of(DATA)
SIZE = len(DATA)


@dataclass
class RawLfs:
    """A new private repository of ann's on a real server, by raw HTTP."""

    yard: Yard
    path: str

    @property
    def base(self) -> str:
        return self.yard.server.http

    @property
    def target(self) -> str:
        return f"/{self.path}.git/info/lfs"

    async def send(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        secret: str | None = None,
    ) -> Reply:
        """One request as ann, or as whose token it is; `target` comes below `info/lfs/`."""
        login = basic("any", secret or self.yard.secret)
        sent = {**MEDIA, **login, **(headers or {})}
        return await request(self.base, method, f"{self.target}/{target}", sent, body)

    async def batch(
        self, operation: str, *objects: tuple[str, int], secret: str | None = None, **more: Any
    ) -> Reply:
        wanted = [{"oid": oid, "size": size} for oid, size in objects]
        body = {"operation": operation, "objects": wanted, **more}
        return await self.send("POST", "objects/batch", json.dumps(body).encode(), secret=secret)

    async def link(self, oid: str = OID, size: int = SIZE, operation: str = "upload", **more: Any) -> str:
        """The target of a link, as it goes into a request line."""
        reply = await self.batch(operation, (oid, size), **more)
        return target_of(json.loads(reply.body)["objects"][0]["actions"][operation]["href"])

    async def at_link(
        self, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Reply:
        """As clients do it: without a login."""
        return await request(self.base, method, target, headers, body)


def target_of(href: str) -> str:
    parts = urlsplit(href)
    return f"{parts.path}?{parts.query}"


async def _state(yard: Yard) -> tuple[LfsState, list[str]]:
    state = await lfs_state(yard.server)
    folder = yard.data / "objects" / "tmp"
    drafts = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    return state, drafts


def _summary(state: LfsState) -> tuple[list[str], list[str], list[str], list[str]]:
    return (
        sorted(state.objects),
        sorted(f"{link.repository_id} {link.oid}" for link in state.links),
        sorted(upload.id for upload in state.uploads),
        sorted(state.keys),
    )


@asynccontextmanager
async def nothing_stored(yard: Yard) -> AsyncIterator[None]:
    """Fails when a row, an object or a temporary file was left by the block."""
    before, drafts = await _state(yard)
    assert drafts == []
    yield
    after, drafts = await _state(yard)
    deadline = time.monotonic() + 30
    # What was refused at its end is deleted beside the answer.
    while (drafts or _summary(after) != _summary(before)) and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
        after, drafts = await _state(yard)
    assert _summary(after) == _summary(before)
    assert drafts == []


def refused(reply: Reply, status: int, code: str) -> None:
    """A refusal in the words of the LFS API."""
    assert reply.status == status, reply
    assert reply.headers["Content-Type"].startswith("application/vnd.git-lfs+json"), reply
    body = json.loads(reply.body)
    assert body["message"]
    assert body["request_id"] == reply.headers["X-Request-Id"]
    assert body["code"] == code
