"""Repositories and files to measure with: the same on every machine, made once and kept."""

import hashlib
import random
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.gitclient import git


@dataclass(frozen=True, slots=True)
class Shape:
    """A history: so many commits over so many files, `blob_bytes` of text in each new version."""

    commits: int
    files: int
    changes: int
    blob_bytes: int
    refs: int
    pointers: int = 0


# 20,000 commits, 160,000 objects, about 105 MB packed: a code base that has lived.
CODE = Shape(commits=20_000, files=2_000, changes=2, blob_bytes=6200, refs=200)
# 200 commits over configuration, cards and pointers, about 8 MB packed: a model's repository.
MODEL = Shape(commits=200, files=250, changes=8, blob_bytes=15_000, refs=10, pointers=40)
# 400 commits, about 48 MB packed: a first push.
PUSH = Shape(commits=400, files=500, changes=10, blob_bytes=36_000, refs=1)


class Material:
    """Makes what is asked for, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def repository(self, name: str, shape: Shape) -> Path:
        """A bare repository, packed with bitmap and commit-graph."""
        path = self.folder / f"{name}-{digest_of(shape)}.git"
        if (path / "complete").exists():
            return path
        shutil.rmtree(path, ignore_errors=True)
        git(self.folder, "init", "-q", "--bare", "-b", "main", path)
        with subprocess.Popen(
            ["git", "fast-import", "--quiet", "--done"], cwd=path, stdin=subprocess.PIPE
        ) as child:
            assert child.stdin is not None
            for piece in _stream(shape):
                child.stdin.write(piece)
            child.stdin.close()
            if child.wait() != 0:
                raise RuntimeError("git fast-import failed")
        git(path, "repack", "-q", "-a", "-d", "--write-bitmap-index", "--threads=2")
        git(path, "commit-graph", "write", "--reachable")
        (path / "complete").touch()
        return path

    def many_refs(self, count: int) -> Path:
        """A small repository with `count` branches."""
        path = self.folder / f"refs-{count}.git"
        if (path / "complete").exists():
            return path
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(self.repository("small", Shape(5, 5, 1, 100, 1)), path)
        tip = git(path, "rev-parse", "main").strip()
        lines = "".join(f"create refs/heads/topic/{number:05d} {tip}\n" for number in range(count - 1))
        git(path, "update-ref", "--stdin", data=lines.encode())
        git(path, "pack-refs", "--all")
        (path / "complete").touch()
        return path

    def file(self, size: int, seed: int = 0) -> Path:
        """A file of random bytes."""
        path = self.folder / f"file-{size}-{seed}"
        if not path.exists() or path.stat().st_size != size:
            rng = random.Random(seed)
            block = rng.randbytes(1 << 20)
            with path.open("wb") as file:
                for number in range(0, size, 1 << 20):
                    part = number.to_bytes(8, "big") + block[8:]
                    file.write(part[: min(1 << 20, size - number)])
        return path


def digest_of(shape: Shape) -> str:
    """The same for the same shape in every process."""
    return hashlib.sha256(repr(shape).encode()).hexdigest()[:12]


def _stream(shape: Shape) -> Iterator[bytes]:
    rng = random.Random(1)
    mark = previous = 0
    pointers = set(rng.sample(range(shape.files), shape.pointers))
    for number in range(shape.commits):
        touched = []
        paths = rng.sample(range(shape.files), shape.changes) if number else range(min(shape.files, 60))
        for path in paths:
            mark += 1
            touched.append((mark, f"d{path % 40}/s{path % 10}/f{path}"))
            if path in pointers:
                oid, size = rng.randbytes(32).hex(), rng.randrange(1 << 32)
                text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {size}\n"
                body = text.encode()
            else:
                # Half of it compresses, as text does.
                body = rng.randbytes(shape.blob_bytes // 3).hex().encode()
            yield b"blob\nmark :%d\ndata %d\n%s\n" % (mark, len(body), body)
        mark += 1
        yield b"commit refs/heads/main\nmark :%d\n" % mark
        yield b"committer Ada <ada@example.org> %d +0100\n" % (1_600_000_000 + number * 60)
        yield b"data 7\nchange\n\n"
        if previous:
            yield b"from :%d\n" % previous
        for blob, name in touched:
            yield b"M 100644 :%d %s\n" % (blob, name.encode())
        yield b"\n"
        if shape.refs > 1 and number % max(1, shape.commits // shape.refs) == 0:
            yield b"reset refs/heads/topic%d\nfrom :%d\n\n" % (number, mark)
        previous = mark
    yield b"done\n"
