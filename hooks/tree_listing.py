"""Which files a commit has that mean something for models, and what differs between two commits."""

import signal
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field

from core.errors import RevisionNotFound
from gitserver.children import DEVNULL
from gitserver.listings import ObjectsUnreadable, watched
from gitserver.process import GitRunner
from gitserver.queries import CHUNK_BYTES, CPU_SECONDS, TooExpensive
from gitserver.updates import is_zero
from hooks.blobs import git_environment
from hooks.formats.registry import FORMATS, format_of

MAX_FILES = 20_000
MAX_CHANGES = 20_000
RULES_FILE = ".modelyard.toml"
# Nobody parses these, but they are looked at before a push is accepted.
PICKLES = (".pkl", ".pickle", ".joblib", ".dill")

_NAMES = frozenset({RULES_FILE}).union(*(known.names for known in FORMATS))
_ENDINGS = tuple(ending for known in FORMATS for ending in known.endings) + PICKLES
# A listing stops here: directories may hold each other many times over.
_MAX_ENTRIES = 1_000_000
_MAX_BYTES = 512 * 1024**2
# Far more than any system has room for in a path.
_MAX_TOKEN_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class TreeFile:
    r"""A file.

    Attributes:
        path: unique in its tree and valid Unicode; what is not UTF-8 is written as `\xff`.
        blob: what Git has: the content, or the pointer to it.
        size: of the content, in bytes.
        lfs: the sha256 of the content, where it is in LFS.
    """

    path: str
    blob: str
    size: int
    lfs: str | None = None

    @property
    def digest(self) -> str:
        """What names the content wherever it is: `sha256:<oid>`, or `git:<oid>` of a blob."""
        return f"sha256:{self.lfs}" if self.lfs else f"git:{self.blob}"


@dataclass(frozen=True, slots=True)
class Changes:
    """Paths that differ between two commits; a moved file is at two of them. `cut`: there are more."""

    paths: Collection[str]
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Listing:
    """Files by path, pointers not resolved; `total`: how many there are; `cut`: more than in `files`."""

    files: dict[str, TreeFile] = field(default_factory=dict)
    total: int = 0
    cut: bool = False


async def list_files(git: GitRunner, where: Mapping[str, str], commit: str) -> Listing:
    """The files of a commit; `where` is the environment that makes git find it.

    Raises:
        RevisionNotFound: there is no such commit.
        TooExpensive: git needs more than a minute, or its paths are longer than anybody's.
        ObjectsUnreadable: some of it cannot be read.
    """
    files: dict[str, TreeFile] = {}
    entries = total = 0
    arguments = ["ls-tree", "-r", "-l", "-z", "--full-tree", commit]
    async with aclosing(_tokens(git, where, arguments, commit)) as tokens:
        async for token in tokens:
            entries += 1
            if entries > _MAX_ENTRIES:
                return Listing(files, total, cut=True)
            entry, _, raw = token.partition(b"\t")
            # Symbolic links and submodules have other modes.
            if not entry.startswith(b"100") or not interests(raw.decode("utf-8", "backslashreplace")):
                continue
            total += 1
            if total <= MAX_FILES:
                path = _unique(raw, files)
                _, _, oid, size = entry.split()
                if not size.isdigit():  # "BAD"
                    raise ObjectsUnreadable("git cannot read all files of this commit")
                files[path] = TreeFile(path, oid.decode(), int(size))
    return Listing(files, total, cut=total > MAX_FILES)


async def list_changes(git: GitRunner, where: Mapping[str, str], base: str | None, head: str) -> Changes:
    """Which paths differ; without a base (None, zeros) all of `head`. Raises as `list_files` does."""
    if base is None or is_zero(base):
        arguments = ["ls-tree", "-r", "-z", "--full-tree", "--name-only", head]
    else:
        arguments = ["diff-tree", "-r", "-z", "--no-renames", "--name-only", base, head, "--"]
    paths: dict[str, None] = {}
    async with aclosing(_tokens(git, where, arguments, head)) as tokens:
        async for path in tokens:
            if len(paths) == MAX_CHANGES:
                return Changes(paths, cut=True)
            paths[_unique(path, paths)] = None
    return Changes(paths)


async def _tokens(
    git: GitRunner, where: Mapping[str, str], arguments: list[str], commit: str
) -> AsyncGenerator[bytes, None]:
    """What git prints, split at NULs."""
    environment = git_environment(git, where)
    async with watched(git, arguments, environment, stdin=DEVNULL, cpu_seconds=CPU_SECONDS) as child:
        assert child.stdout is not None
        rest = b""
        total = 0
        while chunk := await child.stdout.read(CHUNK_BYTES):
            total += len(chunk)
            *tokens, rest = (rest + chunk).split(b"\0")
            if total > _MAX_BYTES or len(rest) > _MAX_TOKEN_BYTES:
                raise TooExpensive("this commit has too many files, or too long paths, to be listed")
            for token in tokens:
                yield token
        status = await child.wait()
    if status in {-signal.SIGXCPU, -signal.SIGKILL}:
        raise TooExpensive("this commit takes too long to list")
    if status != 0:
        raise RevisionNotFound(f"no commit {commit} in this repository", revision=commit)


def _unique(raw: bytes, taken: Collection[str]) -> str:
    """A path as text, and another one than those of `taken`."""
    path = raw.decode("utf-8", "backslashreplace")
    while path in taken:  # somebody has a file whose name is what another one's is written as
        path += f"?{len(taken)}"
    return path


def interests(path: str) -> bool:
    """Whether a file means something for models because of its path."""
    name = path.rpartition("/")[2]
    if not (name in _NAMES or name.lower().endswith(_ENDINGS)):
        return False
    return path == RULES_FILE or name.lower().endswith(PICKLES) or format_of(path) is not None
