"""Git clients that are not git: pygit2 (libgit2), dulwich and isomorphic-git clone and push."""

import asyncio
import gc
import io
import random
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pygit2
import pytest
from dulwich import porcelain
from dulwich.errors import GitProtocolError, NotGitRepository
from pygit2.enums import CredentialType, Feature

from tests.support.binaries import absent
from tests.support.git import Git
from tests.support.histories import generate
from tests.support.node import NodeError, require_node_package, run_node
from tests.support.ssh import ssh_program
from tests.support.yard import USER, Yard

_ISOMORPHIC = Path(__file__).parents[1] / "support" / "isomorphic_client.cjs"


class Client(ABC):
    """One program that speaks Git, as ann. Blocking."""

    def __init__(self, yard: Yard) -> None:
        self.yard = yard

    @abstractmethod
    def clone(self, url: str, folder: Path) -> None: ...

    @abstractmethod
    def push(self, folder: Path, url: str, refs: list[str]) -> None:
        """Pushes refs under the names they have."""


class Pygit2(Client):
    class _Callbacks(pygit2.RemoteCallbacks):
        def __init__(self, yard: Yard) -> None:
            super().__init__()
            self._yard = yard
            self.refused: dict[str, str] = {}

        def credentials(
            self, url: str, username_from_url: str | None, allowed_types: CredentialType
        ) -> pygit2.UserPass | pygit2.Keypair:
            if allowed_types & CredentialType.SSH_KEY:
                file = self._yard.key.file
                return pygit2.Keypair("git", str(file.with_suffix(".pub")), str(file), "")
            return pygit2.UserPass(USER, self._yard.secret)

        def certificate_check(self, certificate: None, valid: bool, host: bytes) -> bool:
            return host == b"127.0.0.1"

        def push_update_reference(self, refname: str, message: str | None) -> None:
            if message is not None:
                self.refused[refname] = message

    def clone(self, url: str, folder: Path) -> None:
        pygit2.clone_repository(url, str(folder), callbacks=self._Callbacks(self.yard)).free()

    def push(self, folder: Path, url: str, refs: list[str]) -> None:
        repository = pygit2.Repository(str(folder))
        callbacks = self._Callbacks(self.yard)
        repository.remotes.create_anonymous(url).push([f"+{ref}:{ref}" for ref in refs], callbacks=callbacks)
        repository.free()
        assert not callbacks.refused


class Dulwich(Client):
    def _login(self, url: str) -> dict[str, Any]:
        if url.startswith("ssh://"):
            # With the port, because dulwich's own comes later in the command line.
            return {"ssh_command": " ".join(ssh_program(self.yard.server.ssh_port, self.yard.key))}
        return {"username": USER, "password": self.yard.secret}

    def clone(self, url: str, folder: Path) -> None:
        porcelain.clone(url, folder, errstream=io.BytesIO(), **self._login(url)).close()

    def push(self, folder: Path, url: str, refs: list[str]) -> None:
        quiet = io.BytesIO()
        login = self._login(url)
        result = porcelain.push(str(folder), url, refs, outstream=quiet, errstream=quiet, **login)
        assert not any((result.ref_status or {}).values()), result.ref_status


class IsomorphicGit(Client):
    def __init__(self, yard: Yard) -> None:
        super().__init__(yard)
        require_node_package("isomorphic-git")
        self._environment = {"GIT_USER": USER, "GIT_SECRET": yard.secret}

    def clone(self, url: str, folder: Path) -> None:
        run_node(_ISOMORPHIC, "clone", url, folder, environment=self._environment)

    def push(self, folder: Path, url: str, refs: list[str]) -> None:
        run_node(_ISOMORPHIC, "push", folder, url, *refs, environment=self._environment)


_FAILURES = (pygit2.GitError, porcelain.Error, GitProtocolError, NotGitRepository, NodeError)
_CLIENTS: dict[str, Callable[[Yard], Client]] = {
    "pygit2": Pygit2,
    "dulwich": Dulwich,
    "isomorphic-git": IsomorphicGit,
}


@pytest.fixture(params=["pygit2-http", "pygit2-ssh", "dulwich-http", "dulwich-ssh", "isomorphic-git-http"])
def way(request: pytest.FixtureRequest, yard: Yard) -> "Way":
    name, _, transport = request.param.rpartition("-")
    if name == "pygit2" and transport == "ssh" and not pygit2.features & Feature.SSH:
        absent("this build of libgit2 has no SSH")
    return Way(yard, _CLIENTS[name](yard), transport)


@dataclass(frozen=True)
class Way:
    """One client over one transport."""

    yard: Yard
    client: Client
    transport: str

    def url(self, path: str) -> str:
        return self.yard.ssh_url(path) if self.transport == "ssh" else self.yard.server.url(f"{path}.git")


@dataclass(frozen=True)
class Source:
    """A repository with a work tree."""

    git: Git
    refs: dict[str, str]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Source]:
    """One of a handful of objects, and one of thousands with a large file."""
    made = {}
    for name, commits, size in (("small", 3, 10), ("large", 300, 8_000_000)):
        folder = tmp_path_factory.mktemp(name)
        bare = generate(folder / "bare", commits=commits)
        git = Git(folder / "work")
        bare("clone", "-q", bare.cwd, git.cwd)
        for branch in bare("for-each-ref", "--format=%(refname:short)", "refs/heads/").splitlines():
            if branch != "main":
                git("branch", branch, f"origin/{branch}")
        git.commit(
            {
                "weights.bin": random.Random(size).randbytes(size),
                "caf\u00e9/\u6a21\u578b.txt": "unicode\n",
                "empty": "",
            },
            "by hand",
        )
        git("tag", "-a", "-m", "annotated", "v-annotated")
        git("tag", "v-light", "HEAD~1")
        git("branch", "feature/one", "HEAD~1")
        git("remote", "remove", "origin")
        made[name] = Source(git, _refs(git))
    return made


def _refs(git: Git) -> dict[str, str]:
    """Branches and tags, those of `origin` counted as the clone's own."""
    lines = git("for-each-ref", "--format=%(objectname) %(refname)").splitlines()
    pairs = [line.split(" ") for line in lines]
    return {
        name.replace("refs/remotes/origin/", "refs/heads/"): oid
        for oid, name in pairs
        if not name.endswith("/HEAD")
    }


async def _holds(way: Way, path: str, refs: dict[str, str]) -> None:
    """What the real client sees there is sound, and exactly this."""
    folder = await asyncio.to_thread(way.yard.new_folder)
    mirror = Git(folder)
    await asyncio.to_thread(mirror, "clone", "-q", "--mirror", way.yard.url(path), ".")
    await asyncio.to_thread(mirror, "fsck", "--strict", "--no-dangling")
    assert await asyncio.to_thread(_refs, mirror) == refs


@pytest.mark.parametrize("size", ["small", "large"])
async def test_push_and_clone(way: Way, sources: dict[str, Source], size: str) -> None:
    source = sources[size]
    path = await way.yard.new_repository()
    await asyncio.to_thread(way.client.push, source.git.cwd, way.url(path), list(source.refs))
    await _holds(way, path, source.refs)
    folder = await asyncio.to_thread(way.yard.new_folder)
    copy = Git(folder / "clone")
    await asyncio.to_thread(way.client.clone, way.url(path), copy.cwd)
    await asyncio.to_thread(copy, "fsck", "--strict", "--no-dangling")
    assert await asyncio.to_thread(_refs, copy) == source.refs
    assert (copy.cwd / "weights.bin").read_bytes() == (source.git.cwd / "weights.bin").read_bytes()
    assert (copy.cwd / "caf\u00e9" / "\u6a21\u578b.txt").read_text() == "unicode\n"
    assert copy("symbolic-ref", "HEAD") == "refs/heads/main"
    # And back again: a second, small push on top of what was cloned.
    tip = await asyncio.to_thread(copy.commit, {"again": "1\n"})
    await asyncio.to_thread(way.client.push, copy.cwd, way.url(path), ["refs/heads/main"])
    await _holds(way, path, {**source.refs, "refs/heads/main": tip})


# dulwich leaves its streams to the collector when the other side hangs up.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
async def test_what_is_refused(way: Way, sources: dict[str, Source]) -> None:
    """A client that asks for what is not there, and may not be created, is told so and fails."""
    folder = await asyncio.to_thread(way.yard.new_folder)
    url = way.url("nobody/nothing")
    with pytest.raises(_FAILURES) as pushed:
        await asyncio.to_thread(way.client.push, sources["small"].git.cwd, url, ["refs/heads/main"])
    with pytest.raises(_FAILURES) as cloned:
        await asyncio.to_thread(way.client.clone, url, folder / "clone")
    for failed in (pushed, cloned):
        said = f"{failed.type.__name__}: {failed.value}"
        assert re.search("404|no such repository|NotGitRepository", said), said
    del pushed, cloned, failed
    gc.collect()
