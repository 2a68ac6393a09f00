"""Paths that a commit may write, checked against the rules of git's own fsck."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitserver.paths import MAX_PATH_BYTES, InvalidPath, check_path, is_dotgit

DOTGIT = [
    *(".git .GIT .gIt git~1 GIT~1 .git. .git... .git:x .git::$INDEX_ALLOCATION git~1:x a\\.git".split()),
    *(".git\\config .git\u200c .g\u200cit \u200c.git .git\ufeff .gi\u206at .git\u202e".split()),
    *(".git ", ".git . .", "git~1 .", "x\\git~1\\y", ".git.\\x"),
]
HARMLESS = [
    *(".gitignore .gitmodules .gitattributes git .gi .gitt git~2 git~11 xgit~1 .git~1 _.git a.git".split()),
    *(".git-rewrite .github .gi\u0442 .git\u00a0 \uff0egit .g\u0131t .git_ git~1x ~.git\u200c".split()),
]


@pytest.mark.parametrize("name", DOTGIT + HARMLESS)
def test_dotgit_as_git_sees_it(name: str, tmp_path: Path) -> None:
    def git(*arguments: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(["git", *arguments], cwd=tmp_path, input=data, capture_output=True)

    git("init", "-q", "--bare", ".")
    blob = git("hash-object", "-w", "--stdin").stdout.strip()
    tree = git("mktree", "-z", data=b"100644 blob %s\t%s\0" % (blob, name.encode())).stdout.strip()
    said = git("fsck", "--strict", tree.decode()).stderr
    assert (b"hasDotgit" in said) == is_dotgit(name), said


@pytest.mark.parametrize("name", DOTGIT)
@pytest.mark.parametrize("path", ["{}", "{}/config", "a/{}", "a/{}/b"])
def test_dotgit_is_refused_everywhere(path: str, name: str) -> None:
    with pytest.raises(InvalidPath):
        check_path(path.format(name))


@pytest.mark.parametrize(
    "path",
    [
        *("", "/", "/a", "a/", "a//b", ".", "..", "./a", "a/.", "../a", "a/../b", "a/..", "//"),
        *("a\0b", "a\nb", "\x1b[31m", "a\x7f", "\x85", "\ud800", "caf\udce9"),
        *("x" * 256, "\u00e4" * 128, "a/" * 256 + "a", "x/" * 2048 + "y", ("y" * 255 + "/") * 16 + "z"),
    ],
)
def test_refused(path: str) -> None:
    with pytest.raises(InvalidPath) as caught:
        check_path(path)
    assert caught.value.code == "invalid_path"
    assert caught.value.message.isascii()
    assert caught.value.message.isprintable()


@pytest.mark.parametrize(
    "path",
    [
        *(
            "a",
            "a/b/c",
            ".gitignore",
            "...",
            "a b",
            "-x",
            "~",
            "*?[",
            "\u00fcn\u00ef/\u6f22\u5b57",
            "C:/x",
            "nul",
        ),
        *("x" * 255, "a/" * 255 + "a", "refs/heads/main", "HEAD", "\\", ".gitmodules"),
    ],
)
def test_taken(path: str) -> None:
    assert check_path(path) == path.encode()


@given(st.text(max_size=40))
def test_what_is_taken_is_plain(path: str) -> None:
    try:
        raw = check_path(path)
    except InvalidPath:
        return
    assert raw.decode() == path
    assert len(raw) <= MAX_PATH_BYTES
    assert not {"", ".", ".."} & set(path.split("/"))
