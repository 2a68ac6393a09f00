"""A server with public repositories, for tests that speak HTTP to it byte by byte."""

from collections.abc import Mapping
from dataclasses import dataclass

from core.models import RepositoryType, Visibility
from tests.support.git import Git
from tests.support.raw_http import Reply, request
from tests.support.wire import packets, pkt
from tests.support.yard import USER, Yard

LIMITS = {"MODELYARD_GIT__MAX_REQUEST_BYTES": "1000000", "MODELYARD_GIT__MAX_PACK_BYTES": "50000000"}
LS_REFS = pkt("command=ls-refs\n") + pkt("object-format=sha1") + b"0001" + pkt("peel\n") + b"0000"
V2 = {"Git-Protocol": "version=2"}


@dataclass
class Face:
    """A server with one public repository of each type, both at the same commit."""

    yard: Yard
    head: str

    @property
    def base(self) -> str:
        return self.yard.server.http

    @property
    def token(self) -> str:
        return self.yard.secret

    async def get(self, target: str, headers: Mapping[str, str] | None = None, method: str = "GET") -> Reply:
        return await request(self.base, method, target, headers)

    async def post(
        self,
        service: str,
        body: bytes,
        headers: Mapping[str, str] | None = None,
        path: str = "/ann/open.git",
    ) -> Reply:
        sent = {"Content-Type": f"application/x-{service}-request", **(headers or {})}
        return await request(self.base, "POST", f"{path}/{service}", sent, body)

    async def ls_refs(self, body: bytes = LS_REFS, headers: Mapping[str, str] | None = None) -> Reply:
        return await self.post("git-upload-pack", body, {**V2, **(headers or {})})


async def open_face(yard: Yard) -> Face:
    public = Visibility.PUBLIC
    await yard.server.add_repository(USER, "open", visibility=public)
    await yard.server.add_repository(USER, "open", type=RepositoryType.DATASET, visibility=public)
    work = Git(yard.new_folder())
    work("init", "-q", ".")
    head = work.commit({"a": "1\n"})
    for path in ("ann/open", "datasets/ann/open"):
        work("push", "-q", yard.url(path), "main")
    return Face(yard, head)


def answered(reply: Reply, status: int, line: str = "") -> None:
    """A refusal: one line of plain text, which git shows to its user."""
    assert reply.status == status, reply
    assert reply.headers["Content-Type"].startswith("text/plain"), reply
    assert reply.text.count("\n") == 1, reply
    assert line in reply.text, reply


def is_not_cached(reply: Reply) -> None:
    control = {part.strip() for part in reply.headers["Cache-Control"].split(",")}
    assert {"no-cache", "max-age=0", "must-revalidate"} <= control
    assert reply.headers["X-Content-Type-Options"] == "nosniff"


async def speaks_v2(face: Face, reply: Reply) -> None:
    assert reply.status == 200, reply
    assert reply.headers["Content-Type"] == "application/x-git-upload-pack-result"
    is_not_cached(reply)
    assert f"{face.head} refs/heads/main\n".encode() in packets(reply.body)
