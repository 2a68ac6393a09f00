"""Generated repositories that hold what makes reading Git difficult."""

from pathlib import Path

from core.models import ObjectFormat
from tests.support.git_world import git


def build_sample(folder: Path, object_format: ObjectFormat, *, ref_deltas: bool = False) -> Path:
    """A packed bare repository with merges, renames, modes, odd names, odd encodings and all kinds of tags.

    Branches: main, side (not merged), topic/one, topic/two, orphan (unrelated). Tags: light, v1 (annotated),
    again (a tag of v1), tree-tag (annotated, of a tree), blob-tag.
    """
    work = folder / "work"
    git(folder, "init", "-q", "-b", "main", f"--object-format={object_format}", work)
    _first_files(work)
    _commit(work, "first\n\nwith a body\n\n- and a list", 1)
    git(work, "tag", "light")
    text = work / "data" / "numbers.txt"
    text.write_text(text.read_text().replace("\n500\n", "\nfive hundred\n"))
    (work / "a.txt").rename(work / "renamed.txt")
    (work / "run.sh").chmod(0o644)
    _commit(work, "rename, edit, chmod", 2)
    git(work, "tag", "-a", "-m", "version one\n\nnotes", "v1")
    git(work, "tag", "-a", "-m", "tag of a tag", "again", "v1")
    for name in ("one", "two", "three"):
        git(work, "checkout", "-q", "-b", f"topic/{name}", "light")
        (work / f"{name}.md").write_text(name)
        _commit(work, f"topic {name}", 3)
    git(work, "checkout", "-q", "main")
    git(work, "merge", "-q", "--no-ff", "-m", "octopus", "topic/one", "topic/two", "topic/three")
    (work / "link").unlink()
    (work / "link").write_text("no link any more")
    (work / "empty").unlink()
    _commit(work, "type change", 4)
    message = "caf\u00e9".encode("latin-1")
    git(
        work, "-c", "i18n.commitEncoding=ISO-8859-1", "commit", "-q", "--allow-empty", "-F", "-", data=message
    )
    git(work, "checkout", "-q", "-b", "side", "HEAD~2")
    (work / "side.txt").write_text("side\n")
    _commit(work, "on the side", 5)
    git(work, "branch", "-q", "-D", "topic/three")
    git(work, "checkout", "-q", "--orphan", "orphan")
    git(work, "rm", "-q", "-r", "-f", ".")
    (work / "lonely").write_text("unrelated\n")
    _commit(work, "unrelated", 6)
    git(work, "tag", "-a", "-m", "a tree", "tree-tag", "main^{tree}")
    git(work, "tag", "blob-tag", "main:renamed.txt")
    return _packed(folder, work, ref_deltas)


def _first_files(work: Path) -> None:
    for name in ("data/deep/er", "a", "a0"):
        (work / name).mkdir(parents=True)
    lines = "".join(f"{number}\n" for number in range(20000))
    files = {
        "a/inside": b"1",
        "a.txt": b"to be renamed\nwith lines\nthat stay\nthe same\n",
        "a0/x": b"2",
        "data/numbers.txt": lines.encode(),
        "data/deep/er/\u00fcn\u00ef c\u00f6de.txt": "\u00e4\u00f6\u00fc".encode(),
        "data/binary": bytes(range(256)) * 40,
        "empty": b"",
        "run.sh": b"#!/bin/sh\n",
        "tab\tand\nnewline": b"strange",
    }
    for name, content in files.items():
        (work / name).write_bytes(content)
    Path(str(work) + "/caf\udce9.bin").write_bytes(b"latin")  # the byte E9, no UTF-8
    (work / "run.sh").chmod(0o755)
    (work / "link").symlink_to("a.txt")


def _commit(work: Path, message: str, hour: int) -> None:
    git(work, "add", "-A")
    if not git(work, "ls-files", "-s", "sub"):
        length = 40 if git(work, "rev-parse", "--show-object-format") == b"sha1\n" else 64
        git(work, "update-index", "--add", "--cacheinfo", f"160000,{'5' * length},sub")
    git(work, "commit", "-q", "-m", message, f"--date=2024-05-06T{hour:02}:00:00 +0530")
    (work / "sub").mkdir(exist_ok=True)


def _packed(folder: Path, work: Path, ref_deltas: bool) -> Path:
    bare = folder / "bare.git"
    git(folder, "clone", "-q", "--mirror", f"file://{work}", bare)
    git(bare, "symbolic-ref", "HEAD", "refs/heads/main")
    offsets = "false" if ref_deltas else "true"
    git(bare, "-c", f"repack.useDeltaBaseOffset={offsets}", "repack", "-q", "-a", "-d", "-f")
    return bare
