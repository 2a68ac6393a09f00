"""Directories, contents of files and archives over REST."""

import asyncio
import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.support.api import ApiServer, Caller, commit
from tests.support.git import Git


@pytest.fixture
async def alice(api: ApiServer) -> Caller:
    return await api.user("alice")


@pytest.fixture
async def path(api: ApiServer, alice: Caller) -> str:
    return await api.repository(alice, "net")


async def test_directories(alice: Caller, path: str) -> None:
    top = await alice.ok("GET", f"{path}/tree/main")
    assert [(one["path"], one["kind"], one["size"]) for one in top] == [
        ("README.md", "blob", 8),
        ("src", "tree", None),
    ]
    inside = await alice.ok("GET", top[1]["url"])
    assert [one["path"] for one in inside] == ["src/main.py"]
    assert (await alice("GET", inside[0]["url"])).body == b"print(1)\n"
    everything = await alice.ok("GET", f"{path}/tree/main?recursive=true")
    assert [one["path"] for one in everything] == ["README.md", "src", "src/main.py"]
    assert (await alice("GET", f"{path}/tree/main/README.md")).code == "entry_not_found"
    assert (await alice("GET", f"{path}/tree/nowhere")).code == "revision_not_found"


async def test_a_large_directory_comes_in_pages(alice: Caller, path: str) -> None:
    names = {f"data/{number:03}.txt": b"x" for number in range(25)}
    await commit(alice, path, names)
    pages = await alice.pages(f"{path}/tree/main/data?limit=10")
    assert [len(page) for page in pages] == [10, 10, 5]
    assert [one["path"] for page in pages for one in page] == sorted(names)


async def test_content_and_its_version(api: ApiServer, alice: Caller, path: str) -> None:
    whole = await alice("GET", f"{path}/raw/main/README.md")
    assert (whole.status, whole.body) == (200, b"# hello\n")
    oid = (await alice.ok("GET", f"{path}/tree/main"))[0]["oid"]
    assert whole.headers["ETag"] == f'"{oid}"'
    known = {"If-None-Match": f'W/"x", "{oid}"'}
    unchanged = await alice("GET", f"{path}/raw/main/README.md", headers=known)
    assert (unchanged.status, unchanged.body, unchanged.headers["ETag"]) == (304, b"", f'"{oid}"')
    await commit(alice, path, {"README.md": b"# other\n"})
    assert (await alice("GET", f"{path}/raw/main/README.md", headers=known)).status == 200
    head = await alice("HEAD", f"{path}/raw/main/README.md")
    assert (head.status, head.headers["Content-Length"], head.body) == (200, "8", b"")


async def test_only_a_full_commit_id_makes_an_answer_immutable(alice: Caller, path: str) -> None:
    tip = (await alice.ok("GET", f"{path}/branches/main"))["oid"]
    assert "immutable" in (await alice("GET", f"{path}/raw/{tip}/README.md")).headers["Cache-Control"]
    for revision in ("main", "HEAD", tip[:12], "refs%2Fheads%2Fmain"):
        control = (await alice("GET", f"{path}/raw/{revision}/README.md")).headers["Cache-Control"]
        assert control == "private, no-cache", revision


async def test_ranges(alice: Caller, path: str) -> None:
    content = os.urandom(700_000)
    await commit(alice, path, {"weights.bin": content})
    url = f"{path}/raw/main/weights.bin"
    etag = (await alice("HEAD", url)).headers["ETag"]
    for header, start, stop in (("0-0", 0, 1), ("300000-500000", 300_000, 500_001), ("-5", 699_995, 700_000)):
        part = await alice("GET", url, headers={"Range": f"bytes={header}"})
        assert part.status == 206
        assert part.headers["Content-Range"] == f"bytes {start}-{stop - 1}/700000"
        assert part.body == content[start:stop]
    beyond = await alice("GET", url, headers={"Range": "bytes=700000-"})
    assert (beyond.code, beyond.json["size"]) == ("range_not_satisfiable", 700_000)
    fresh = await alice("GET", url, headers={"Range": "bytes=1-2", "If-Range": etag})
    assert fresh.status == 206
    stale = await alice("GET", url, headers={"Range": "bytes=1-2", "If-Range": '"other"'})
    assert (stale.status, stale.body) == (200, content)


@pytest.mark.parametrize(
    "name", ["page.html", "image.svg", "run.js", "x.xhtml", "index.htm", "a.pdf", "b.swf", "noend"]
)
async def test_no_browser_runs_what_somebody_pushed(alice: Caller, path: str, name: str) -> None:
    await commit(alice, path, {name: b"<script>alert(1)</script>"})
    answer = await alice("GET", f"{path}/raw/main/{name}")
    assert answer.headers["Content-Type"] in {"text/plain; charset=utf-8", "application/octet-stream"}
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in answer.headers["Content-Security-Policy"]
    assert name in answer.headers["Content-Disposition"]


async def test_names_that_are_no_text(api: ApiServer, alice: Caller, path: str, tmp_path: Path) -> None:
    names = [b"\xff\xfe.bin", "größe.txt".encode(), b"a b%2F+#?.txt", b'quo"te\\.md', b"line\nfeed"]
    git = Git(tmp_path)
    git("init", "--quiet")
    blob = git("hash-object", "-w", "--stdin", data=b"content").strip()
    index = b"".join(b"100644 blob %s\t%s\0" % (blob.encode(), name) for name in sorted(names))
    tree = git("mktree", "-z", data=index).strip()
    git("update-ref", "refs/heads/odd", git("commit-tree", tree, "-m", "odd names").strip())
    token = alice.headers["Authorization"].removeprefix("Bearer ")
    remote = api.base.replace("http://", f"http://x:{token}@") + "/alice/net.git"
    await asyncio.to_thread(git, "push", remote, "odd")
    entries = await alice.ok("GET", f"{path}/tree/odd")
    assert len(entries) == len(names)
    for entry in entries:
        answer = await alice("GET", entry["url"])
        assert (answer.status, answer.body) == (200, b"content"), entry
    history = await alice.ok("GET", f"{path}/commits?revision=odd&path=%ff%fe.bin")
    assert [one["summary"] for one in history] == ["odd names"]


async def test_revisions_with_slashes(alice: Caller, path: str) -> None:
    await alice.ok("POST", f"{path}/branches", {"name": "feature/a", "revision": "main"})
    for revision in ("feature%2Fa", "refs%2Fheads%2Ffeature%2Fa"):
        assert (await alice("GET", f"{path}/raw/{revision}/src/main.py")).body == b"print(1)\n"
        assert (await alice("GET", f"{path}/raw/{revision}/src%2Fmain.py")).body == b"print(1)\n"
        assert (await alice("GET", f"{path}/archive/{revision}.zip")).status == 200
        assert (await alice.ok("GET", f"{path}/compare/main...{revision}"))["ahead"] == 0
    assert (await alice("GET", f"{path}/raw/feature/a/src/main.py")).code == "revision_not_found"


async def test_archives(alice: Caller, path: str) -> None:
    tip = (await alice.ok("GET", f"{path}/branches/main"))["oid"]
    zipped = await alice("GET", f"{path}/archive/main.zip")
    assert zipped.headers["Content-Type"] == "application/zip"
    assert zipped.headers["ETag"] == f'W/"{tip}.zip"'
    with zipfile.ZipFile(io.BytesIO(zipped.body)) as archive:
        assert archive.read("net-main/src/main.py") == b"print(1)\n"
    tarred = await alice("GET", f"{path}/archive/main.tar.gz")
    with tarfile.open(fileobj=io.BytesIO(tarred.body)) as tar:
        assert "net-main/README.md" in tar.getnames()
    known = {"If-None-Match": zipped.headers["ETag"]}
    assert (await alice("GET", f"{path}/archive/main.zip", headers=known)).status == 304
    head = await alice("HEAD", f"{path}/archive/main.zip")
    assert (head.status, head.body) == (200, b"")
    assert 'filename="net-main.zip"' in head.headers["Content-Disposition"]
    assert (await alice("GET", f"{path}/archive/main.rar")).code == "not_found"


async def test_an_empty_repository(api: ApiServer, alice: Caller) -> None:
    await alice.ok("POST", "/repositories", {"owner": "alice", "name": "empty"})
    path = "/repositories/models/alice/empty"
    assert await alice.ok("GET", f"{path}/branches") == []
    assert await alice.ok("GET", f"{path}/tags") == []
    for rest in (
        "/tree/HEAD",
        "/raw/HEAD/README.md",
        "/commits",
        "/archive/main.zip",
        "/compare/main...main",
    ):
        assert (await alice("GET", path + rest)).code == "revision_not_found"
