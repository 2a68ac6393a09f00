"""Generated histories, through `git fast-import`: fast to make, the same on every machine."""

import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.support.git import Git


def _stream(commits: int, files: int, *, seed: int, blob_bytes: int, merge_every: int) -> Iterator[bytes]:
    rng = random.Random(seed)
    mark = 0
    previous = side = 0
    for number in range(commits):
        touched = []
        for _ in range(2):
            mark += 1
            name = f"d{rng.randrange(40)}/s{rng.randrange(10)}/f{rng.randrange(files)}.txt"
            body = rng.randbytes(blob_bytes // 2).hex().encode()
            yield b"blob\nmark :%d\ndata %d\n%s\n" % (mark, len(body), body)
            touched.append((mark, name))
        mark += 1
        message = b"commit %d\n" % number
        yield b"commit refs/heads/main\nmark :%d\n" % mark
        yield b"committer Ada <ada@example.org> %d +0100\n" % (1_600_000_000 + number * 60)
        yield b"data %d\n%s" % (len(message), message)
        if previous:
            yield b"from :%d\n" % previous
        if side and merge_every and number % merge_every == 0:
            yield b"merge :%d\n" % side
        for blob, name in touched:
            yield b"M 100644 :%d %s\n" % (blob, name.encode())
        yield b"\n"
        if merge_every and number % merge_every == merge_every // 2:
            side = mark
            yield b"reset refs/heads/side%d\nfrom :%d\n\n" % (number, mark)
        if number % 500 == 499:
            tag = b"release %d\n" % number
            yield b"tag v%d\nfrom :%d\ntagger Ada <ada@example.org> %d +0000\ndata %d\n%s\n" % (
                number,
                mark,
                1_600_000_000 + number * 60,
                len(tag),
                tag,
            )
        previous = mark
    yield b"done\n"


def generate(
    path: Path,
    *,
    commits: int,
    files: int = 100,
    seed: int = 1,
    blob_bytes: int = 256,
    merge_every: int = 50,
) -> Git:
    """Makes a bare repository with branches, merges and annotated tags; about 5 objects a commit."""
    path.mkdir(parents=True)
    git = Git(path)
    git("init", "-q", "--bare", ".")
    with subprocess.Popen(
        ["git", "fast-import", "--quiet", "--done"], cwd=path, env=git.env(), stdin=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        for piece in _stream(commits, files, seed=seed, blob_bytes=blob_bytes, merge_every=merge_every):
            process.stdin.write(piece)
        process.stdin.close()
        assert process.wait(300) == 0
    return git
