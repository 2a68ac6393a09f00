"""The way in and the way out: import of all refs from anywhere, export as a plain bare repository."""

import asyncio
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from core.access import Actor
from core.errors import AlreadyExists, Unprocessable
from core.models import ObjectFormat, PackKind, Transport
from core.names import is_valid_ref
from core.repositories import RepositoryInfo
from gitserver.process import FSCK_TOLERATED, GitFailed, GitRunner
from gitserver.publish import Publisher, StaleConnectivity
from gitserver.quarantine import find_pack, open_workplace
from gitserver.snapshots import CacheUnavailable, Snapshots
from gitserver.states import RefValue
from gitserver.updates import RefUpdate, Verdict

_SCHEMES = "file:git:http:https:ssh"
_ZERO = {ObjectFormat.SHA1: "0" * 40, ObjectFormat.SHA256: "0" * 64}


class ImportFailed(Unprocessable):
    """The source cannot be read as a Git repository; nothing was changed."""

    code = "import_failed"


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What came in. `head` is the branch that the source calls its own, when it has one."""

    refs: int
    objects: int
    bytes: int
    head: str | None
    refused: tuple[Verdict, ...]


class Exchange:
    """Imports and exports whole repositories. For the operator: sources are not restricted."""

    def __init__(self, snapshots: Snapshots, publisher: Publisher, git: GitRunner) -> None:
        self._snapshots = snapshots
        self._publisher = publisher
        self._git = git

    async def export(self, repository: RepositoryInfo, directory: Path) -> int:
        """Writes a bare repository that needs nothing of this server; returns the number of refs.

        Raises:
            AlreadyExists: the directory exists.
        """
        async with self._snapshots.open(repository.id) as snapshot:
            try:
                await asyncio.to_thread(_copy, snapshot.path, directory)
            except FileExistsError as error:
                raise AlreadyExists(f"{directory} exists already") from error
            return len(snapshot.refs)

    async def import_(self, repository: RepositoryInfo, source: str, *, actor: Actor) -> ImportReport:
        """Fetches every ref of `source` (a URL or a directory) and makes the repository's refs equal to it.

        Refs that the source lacks are left alone.

        Raises:
            CacheUnavailable: this node's disk cannot be used; nothing was changed.
            ImportFailed: the source cannot be read, is damaged, or uses the other object format.
        """
        async with open_workplace(self._snapshots.root) as work:
            await self._git.run(
                ["init", "-q", "--bare", f"--object-format={repository.object_format.value}", str(work)]
            )
            head = await self._fetch(work, source)
            refs = await self._refs(work)
            files = await asyncio.to_thread(find_pack, work / "objects" / "pack")
            if refs and files is None:
                raise CacheUnavailable("the cache was deleted in the middle of the import")
            state = await self._snapshots.state(repository.id)
            updates = [
                RefUpdate(name, _old(state.refs.get(name), repository), value.oid, value.peeled)
                for name, value in refs.items()
                if is_valid_ref(name) and value != state.refs.get(name)
            ]
            if not updates:
                return ImportReport(0, 0, 0, head, ())
            try:
                published = await self._publisher.publish(
                    repository.id,
                    updates,
                    files,
                    actor=actor,
                    transport=Transport.LOCAL,
                    epoch=state.prune_epoch,
                    kind=PackKind.IMPORT,
                )
            except StaleConnectivity as error:
                raise ImportFailed("the repository is being cleaned; import again") from error
            refused = tuple(verdict for verdict in published.verdicts if verdict.error)
            return ImportReport(
                len(updates) - len(refused),
                files.objects if files else 0,
                files.bytes if files else 0,
                head,
                refused,
            )

    async def _fetch(self, work: Path, source: str) -> str | None:
        """Fetches everything into one pack; returns the source's HEAD branch."""
        environment = self._git.environment(
            {
                "fetch.fsckObjects": "true",
                **{f"fetch.fsck.{name}": "ignore" for name in FSCK_TOLERATED},
                "pack.threads": "1",
                "core.bigFileThreshold": "16m",
                "pack.writeReverseIndex": "true",
            },
            {"GIT_DIR": str(work), "GIT_ALLOW_PROTOCOL": _SCHEMES, **_ssh_environment()},
        )
        where = await asyncio.to_thread(_location, source)
        try:
            listed = await self._git.run(
                ["ls-remote", "--symref", "--", where, "HEAD"], environment=environment
            )
            await self._git.run(
                ["fetch", "-q", "--no-write-fetch-head", "--", where, "+refs/*:refs/*"],
                environment=environment,
            )
            await self._git.run(["repack", "-a", "-d", "-q", "--write-bitmap-index"], environment=environment)
        except GitFailed as error:
            raise ImportFailed(f"cannot import: {error.reason}") from error
        for line in listed.decode(errors="replace").splitlines():
            if line.startswith("ref: refs/heads/"):
                return line.removeprefix("ref: refs/heads/").split("\t")[0]
        return None

    async def _refs(self, work: Path) -> dict[str, RefValue]:
        out = await self._git.run(
            ["for-each-ref", "--format=%(objectname) %(*objectname) %(refname)"],
            environment=self._git.environment(extra={"GIT_DIR": str(work)}),
        )
        refs = {}
        # By LF alone: a ref name may hold what else Unicode calls a line end.
        for line in out.decode(errors="replace").removesuffix("\n").split("\n"):
            if not line:
                continue
            oid, peeled, name = line.split(" ", 2)
            refs[name] = RefValue(oid, peeled or None)
        return refs


def _old(value: RefValue | None, repository: RepositoryInfo) -> str:
    return value.oid if value is not None else _ZERO[repository.object_format]


def _ssh_environment() -> dict[str, str]:
    """An import over SSH uses the operator's own key and known hosts."""
    kept = {name: os.environ[name] for name in ("HOME", "SSH_AUTH_SOCK") if name in os.environ}
    return {**kept, "GIT_SSH_COMMAND": "ssh -o BatchMode=yes"}


def _location(source: str) -> str:
    """A directory becomes absolute, because git runs elsewhere; a URL stays as it is."""
    path = Path(source)
    return str(path.resolve()) if "://" not in source and path.exists() else source


def _copy(source: Path, target: Path) -> None:
    target.mkdir(parents=True)
    shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("lease"))
