"""The real git client over every transport, protocol version and database."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from core.models import ObjectFormat
from tests.support.database import ENGINES, Databases
from tests.support.git import Git
from tests.support.server import running_server
from tests.support.wire import pkt
from tests.support.yard import Yard

_Servers = dict[tuple[str, bool], Yard]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory, databases: Databases) -> Iterator[_Servers]:
    """One server for each database, with and without TLS."""
    with asyncio.Runner() as runner:
        opened: _Servers = {}
        contexts = []
        for engine in ENGINES:
            for tls in (False, True):
                folder = tmp_path_factory.mktemp(f"{engine}-{tls}")
                url = ""
                if engine == "postgresql":
                    context = databases.fresh(engine, migrated=False)
                    url = runner.run(context.__aenter__())
                    contexts.append(context)
                server = running_server(folder / "server", database_url=url, tls=tls)
                server.start()
                opened[engine, tls] = runner.run(Yard.open(server, folder / "clients"))
        yield opened
        for yard in opened.values():
            yard.server.stop()
        for context in contexts:
            runner.run(context.__aexit__(None, None, None))


@dataclass
class Way:
    """One combination of database, transport and protocol version."""

    yard: Yard
    transport: str
    protocol: str

    async def repository(self, object_format: ObjectFormat = ObjectFormat.SHA1) -> str:
        """The address of a new repository."""
        return self.address(await self.yard.new_repository(object_format))

    def address(self, path: str) -> str:
        return self.yard.ssh_url(path) if self.transport == "ssh" else self.yard.url(path)

    def client(self, cwd: Path | None = None) -> Git:
        git = self.yard.git(cwd or self.yard.new_folder())
        return Git(git.cwd, {**git.config, "protocol.version": self.protocol}, git.environment)

    def init(self, object_format: str = "sha1") -> Git:
        git = self.client()
        git("init", "-q", f"--object-format={object_format}", ".")
        return git


@pytest.fixture(params=["0", "1", "2"])
def protocol(request: pytest.FixtureRequest) -> str:
    version: str = request.param
    return version


@pytest.fixture(params=["http", "https", "ssh"])
def transport(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(params=ENGINES)
async def way(
    request: pytest.FixtureRequest, servers: _Servers, transport: str, protocol: str
) -> AsyncIterator[Way]:
    made = Way(servers[request.param, transport == "https"], transport, protocol)
    yield made
    await made.yard.quiet()


def same(source: Git, copy: Git) -> None:
    """The copy holds every branch and tag of the source, and is sound."""
    assert {n: o for n, o in copy.refs(".").items() if n.startswith(("refs/heads/", "refs/tags/"))} == {
        n: o for n, o in source.refs(".").items() if n.startswith(("refs/heads/", "refs/tags/"))
    }
    copy("fsck", "--strict", "--no-dangling")


async def test_push_clone_fetch_force_delete_tags(way: Way) -> None:
    url = await way.repository()
    source = way.init()
    first = source.commit({"a": "1\n", "dir/b": "2\n"})
    source("tag", "-a", "-m", "release", "v1")
    source("tag", "light")
    source("branch", "side")
    source("push", "-q", url, "main", "side", "--tags", "-o", "ci.skip", "-o", "key=value")
    copy = way.client()
    copy("clone", "-q", "--mirror", url, ".")
    same(source, copy)
    assert copy.refs(url)["refs/tags/v1^{}"] == first
    assert copy("symbolic-ref", "HEAD") == "refs/heads/main"

    work = way.client()
    work("clone", "-q", url, ".")
    second = source.commit({"a": "3\n"})
    source("push", "-q", url, "main")
    work("fetch", "-q")
    assert work("rev-parse", "origin/main") == second
    assert source.run("push", "-q", url, "side:main").status == 1, "not a fast-forward"
    source("push", "-q", "--force", url, f"{first}:main")
    work("fetch", "-q")
    assert work("rev-parse", "origin/main") == first
    source("push", "-q", "--force-with-lease=side:" + first, url, ":side")
    source("push", "-q", url, ":refs/tags/light")
    assert set(source.refs(url)) == {"HEAD", "refs/heads/main", "refs/tags/v1", "refs/tags/v1^{}"}


async def test_five_hundred_refs_at_once(way: Way) -> None:
    url = await way.repository()
    source = way.init()
    tip = source.commit({"a": "1\n"})
    source(
        "update-ref", "--stdin", data="".join(f"create refs/heads/b{n} {tip}\n" for n in range(500)).encode()
    )
    source("push", "-q", url, "--all")
    copy = way.client()
    copy("clone", "-q", "--mirror", url, ".")
    same(source, copy)
    source("push", "-q", url, *(f":refs/heads/b{n}" for n in range(500)))
    assert set(source.refs(url)) == {"HEAD", "refs/heads/main"}


async def test_atomic_push_is_all_or_nothing(way: Way) -> None:
    url = await way.repository()
    source = way.init()
    first = source.commit({"a": "1\n"})
    source("push", "-q", url, "main")
    other = way.client()
    other("clone", "-q", url, ".")
    other.commit({"a": "2\n"})
    other("push", "-q", "origin", "main")
    source.commit({"a": "3\n"})
    source("branch", "new")
    done = source.run("push", "--atomic", url, "main", "new")
    assert done.status == 1
    assert "refs/heads/new" not in source.refs(url)
    source("push", "--atomic", "-q", "--force", url, "main", "new")
    assert source.refs(url)["refs/heads/new"] == source("rev-parse", "main") != first


async def test_shallow_clones(way: Way) -> None:
    url = await way.repository()
    source = way.init()
    for number in range(8):
        stamp = f"{1_700_000_000 + number * 86_400} +0000"
        dated = Git(source.cwd, source.config, {**source.environment, "GIT_COMMITTER_DATE": stamp})
        dated.commit({"a": f"{number}\n"})
    source("push", "-q", url, "main")
    copy = way.client()
    copy("clone", "-q", "--depth", "2", url, ".")
    assert copy("rev-list", "--count", "HEAD") == "2"
    copy("fetch", "-q", "--deepen", "3")
    assert copy("rev-list", "--count", "HEAD") == "5"
    copy("fetch", "-q", "--unshallow")
    assert copy("rev-list", "--count", "HEAD") == "8"
    copy("fsck", "--strict")
    since = way.client()
    since("clone", "-q", f"--shallow-since={1_700_000_000 + 5 * 86_400 - 1}", url, ".")
    assert since("rev-list", "--count", "HEAD") == "3"
    since.commit({"b": "from a shallow clone\n"})
    since("push", "-q", "origin", "main")
    excluded = way.client()
    source("push", "-q", url, "main~4:refs/tags/old")
    excluded("clone", "-q", "--shallow-exclude=old", url, ".")
    assert excluded("rev-list", "--count", "HEAD") == "5"


@pytest.mark.parametrize("wanted", ["blob:none", "blob:limit=1k", "tree:0"])
async def test_partial_clone_brings_the_rest_when_needed(way: Way, wanted: str) -> None:
    url = await way.repository()
    source = way.init()
    source.commit({"small": "s\n", "big": "b" * 5000, "dir/deep/file": "d\n"})
    source.commit({"big": "c" * 5000})
    source("push", "-q", url, "main")
    copy = way.client()
    copy("clone", "-q", f"--filter={wanted}", "--no-checkout", url, ".")
    missing = copy("rev-list", "--objects", "--all", "--missing=print")
    assert "?" in missing, "the filter left something out"
    copy("checkout", "-q", "main")
    assert (copy.cwd / "big").read_text() == "c" * 5000
    assert copy("show", "HEAD~1:big") == "b" * 5000


async def test_sparse_checkout(way: Way) -> None:
    url = await way.repository()
    source = way.init()
    source.commit({"in/a": "1\n", "out/b": "2\n"})
    source("push", "-q", url, "main")
    copy = way.client()
    copy("clone", "-q", "--filter=blob:none", "--sparse", url, ".")
    copy("sparse-checkout", "set", "in")
    assert (copy.cwd / "in/a").exists()
    assert not (copy.cwd / "out").exists()


async def test_mirror_push_and_bundle_of_the_clone(way: Way) -> None:
    url = await way.repository()
    source = way.init()
    source.commit({"a": "1\n"})
    source("tag", "-am", "t", "v1")
    source("notes", "add", "-m", "note")
    source("push", "-q", "--mirror", url)
    copy = way.client()
    copy("clone", "-q", "--mirror", url, ".")
    assert copy.refs(".") == source.refs(".")
    copy("bundle", "create", "-q", "all.bundle", "--all")
    from_bundle = way.client()
    from_bundle("clone", "-q", "--mirror", copy.cwd / "all.bundle", ".")
    same(source, from_bundle)


async def test_empty_repository_names_its_default_branch(way: Way) -> None:
    url = await way.repository()
    copy = way.client()
    done = copy.run("-c", "init.defaultBranch=other", "clone", url, ".")
    assert done.status == 0, done.output
    if way.protocol == "2":  # versions 0 and 1 cannot say what HEAD of an empty repository is
        assert copy("symbolic-ref", "HEAD") == "refs/heads/main"
    assert copy.refs(url) == {}


async def test_sha256_repository(way: Way) -> None:
    url = await way.repository(ObjectFormat.SHA256)
    source = way.init("sha256")
    source.commit({"a": "1\n"})
    source("tag", "-am", "t", "v1")
    source("push", "-q", url, "main", "--tags")
    copy = way.client()
    copy("clone", "-q", "--mirror", url, ".")
    assert copy("rev-parse", "--show-object-format") == "sha256"
    same(source, copy)


async def test_submodule_with_relative_url(way: Way) -> None:
    library = await way.yard.new_repository()
    parent = await way.yard.new_repository()
    inner = way.init()
    inner.commit({"lib": "1\n"})
    inner("push", "-q", way.address(library), "main")
    outer = way.client()
    outer("clone", "-q", way.address(parent), ".")
    outer("checkout", "-q", "-B", "main")
    outer("submodule", "add", "-q", "../" + library.split("/")[1] + ".git", "lib")
    outer.commit({"a": "1\n"})
    outer("push", "-q", "origin", "main")
    copy = way.client()
    copy("clone", "-q", "--recurse-submodules", way.address(parent), ".")
    assert (copy.cwd / "lib/lib").read_text() == "1\n"


async def test_fetch_of_one_commit_by_name_and_by_oid(way: Way) -> None:
    url = await way.repository()
    source = way.init()
    first = source.commit({"a": "1\n"})
    source.commit({"a": "2\n"})
    source("push", "-q", url, "main")
    copy = way.init()
    copy("fetch", "-q", url, first)
    assert copy("rev-parse", "FETCH_HEAD") == first
    assert copy.run("fetch", "-q", url, "f" * 40).status != 0
    assert copy.run("fetch", "-q", url, "refs/heads/none").status != 0


@pytest.mark.parametrize("kind", ["tar", "zip", "tar.gz"])
async def test_archive_over_ssh(servers: _Servers, kind: str) -> None:
    way = Way(servers["sqlite", False], "ssh", "2")
    url = await way.repository()
    source = way.init()
    source.commit({"a": "1\n", "dir/b": "2\n"})
    source("push", "-q", url, "main")
    target = source.cwd / f"out.{kind}"
    source("archive", f"--remote={url}", f"--format={kind}", "-o", target, "main")
    local = source.cwd / f"local.{kind}"
    source("archive", f"--format={kind}", "-o", local, "main")
    assert target.read_bytes() == local.read_bytes()


async def test_object_info(servers: _Servers) -> None:
    """`object-info` of protocol version 2, which no porcelain command asks for yet."""
    yard = servers["sqlite", False]
    path = await yard.new_repository()
    source = Way(yard, "http", "2").init()
    source.commit({"a": "12345"})
    source("push", "-q", yard.url(path), "main")
    blob = source("rev-parse", "main:a")
    body = pkt("command=object-info") + pkt("object-format=sha1") + b"0001"
    body += pkt("size\n") + pkt(f"oid {blob}\n") + b"0000"
    answer = await yard.post(path, "git-upload-pack", body, headers=[("Git-Protocol", "version=2")])
    assert f"{blob} 5".encode() in answer.body, answer
