"""Pointer files: the specification's examples, hostile ones, and the verdicts of git-lfs itself."""

import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lfs.pointer import Pointer, is_oid, parse_pointer, write_pointer
from tests.support.binaries import require_binary

# https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
OID = "4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393"
VERSION = b"version https://git-lfs.github.com/spec/v1\n"
HASH = b"oid sha256:" + OID.encode() + b"\n"
SIZE = b"size 12345\n"
SIMPLE = VERSION + HASH + SIZE
EXTENSION = b"ext-0-foo sha256:" + OID.encode() + b"\n"
# https://github.com/git-lfs/git-lfs/blob/main/docs/extensions.md
EXTENDED = (
    VERSION
    + EXTENSION
    + b"ext-1-bar sha256:44d76e8b1ba43ea1b8ce7b0dcf8ef4ee0f4b2f0d4f1bc8b2bb7ad6a5f5a1a0a4\n"
    + b"ext-2-baz sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2394\n"
    + HASH
    + SIZE
)


def padded(length: int) -> bytes:
    """A pointer of so many bytes, all of them with a meaning."""
    rest = length - len(VERSION + b"ext-0- \n" + EXTENSION.partition(b" ")[2][:-1] + HASH + SIZE)
    return VERSION + b"ext-0-" + b"x" * rest + b" " + EXTENSION.partition(b" ")[2] + HASH + SIZE


def extension(key: bytes, value: bytes = b"sha256:" + OID.encode()) -> bytes:
    return VERSION + key + b" " + value + b"\n" + HASH + SIZE


POINTERS = {
    "simple": SIMPLE,
    "extended": EXTENDED,
    "extensions in any order": VERSION + b"ext-1-a sha256:" + OID.encode() + b"\n" + EXTENSION + HASH + SIZE,
    "extension with odd name": extension(b"ext-0-foo!"),
    "extension with accent": extension("ext-0-fooé".encode()),
    "extension beyond UTF-8": extension(b"ext-0-foo\xff"),
    "no newline at the end": SIMPLE[:-1],
    "CRLF": SIMPLE.replace(b"\n", b"\r\n"),
    "newlines at the end": SIMPLE + b"\n\n\r\n",
    "space around": b" \n\t" + SIMPLE + "\u00a0\u3000\x0b".encode(),
    "blank lines": VERSION + b"\n\r\n" + HASH + b"\n" + SIZE,
    "alpha": SIMPLE.replace(b"https://git-lfs.github.com/spec/v1", b"http://git-media.io/v/2"),
    "pre-release": SIMPLE.replace(b"git-lfs.github", b"hawser.github"),
    "1023 bytes": padded(1023),
    "plus": VERSION + HASH + b"size +12345\n",
    "leading zeros": VERSION + HASH + b"size " + b"0" * 100 + b"12345\n",
}
OTHERS = {
    "BOM": b"\xef\xbb\xbf" + SIMPLE,
    "version 2": SIMPLE.replace(b"spec/v1", b"spec/v2"),
    "http": SIMPLE.replace(b"https", b"http"),
    "space behind the version": SIMPLE.replace(b"v1\n", b"v1 \n"),
    "wrong order": VERSION + SIZE + HASH,
    "no version": HASH + SIZE,
    "no oid": VERSION + SIZE,
    "no size": VERSION + HASH,
    "version alone": VERSION,
    "upper-case oid": SIMPLE.replace(OID.encode(), OID.upper().encode()),
    "short oid": SIMPLE.replace(OID.encode(), OID[:-1].encode()),
    "long oid": SIMPLE.replace(OID.encode(), OID.encode() + b"a"),
    "sha1": SIMPLE.replace(b"sha256", b"sha1"),
    "sha512": SIMPLE.replace(b"sha256", b"sha512"),
    "no algorithm": SIMPLE.replace(b"sha256:", b""),
    "two spaces": SIMPLE.replace(b"oid ", b"oid  "),
    "tab": SIMPLE.replace(b" ", b"\t"),
    "negative": SIMPLE.replace(b"12345", b"-1"),
    "too large": SIMPLE.replace(b"12345", b"9223372036854775808"),
    "hexadecimal": SIMPLE.replace(b"12345", b"0x10"),
    "underscore": SIMPLE.replace(b"12345", b"1_0"),
    "fraction": SIMPLE.replace(b"12345", b"1.0"),
    "digits of another script": SIMPLE.replace(b"12345", "١٢".encode()),
    "no number": SIMPLE.replace(b"12345", b""),
    "oid twice": VERSION + HASH + HASH + SIZE,
    "size twice": SIMPLE + SIZE,
    "two pointers": SIMPLE + SIMPLE,
    "unknown key": VERSION + HASH + b"owner me\n" + SIZE,
    "unknown key at the end": SIMPLE + b"x-y z\n",
    "extension behind": SIMPLE + EXTENSION,
    "two extensions in one place": extension(b"ext-0-bar sha256:" + OID.encode() + b"\n" + b"ext-0-foo"),
    "extension without a place": extension(b"ext-foo"),
    "extension in place 10": extension(b"ext-10-foo"),
    "extension without a hash": extension(b"ext-0-foo", b"sha256:abc"),
    "CR as newline": SIMPLE.replace(b"\n", b"\r"),
    "other line separators": VERSION + HASH[:-1] + "\u2028".encode() + SIZE,
    "form feed": VERSION + HASH[:-1] + b"\x0c" + SIZE,
    "NUL": SIMPLE + b"\0",
    "unit separator": SIMPLE + b"\x1f",
    "binary tail": SIMPLE + b"\xff\xfe",
    "text about it": b"see version https://git-lfs.github.com/spec/v1\n",
}


@pytest.mark.parametrize("name", POINTERS)
def test_pointers(name: str) -> None:
    assert parse_pointer(POINTERS[name]) == Pointer(OID, 12345)


@pytest.mark.parametrize("name", OTHERS)
def test_other_files(name: str) -> None:
    assert parse_pointer(OTHERS[name]) is None


def test_the_limit_of_length() -> None:
    assert len(padded(1023)) == 1023
    assert parse_pointer(padded(1023)) is not None
    assert parse_pointer(padded(1024)) is None
    assert parse_pointer(SIMPLE + b"\n" * (1024 - len(SIMPLE))) is None
    assert parse_pointer(b"") is None


@pytest.mark.parametrize("name", [*POINTERS, *OTHERS])
def test_git_lfs_says_the_same(name: str, tmp_path: Path) -> None:
    binary = require_binary("git-lfs")
    (tmp_path / "file").write_bytes(POINTERS.get(name) or OTHERS[name])
    done = subprocess.run(
        [binary, "pointer", "--check", "--file=file"], cwd=tmp_path, capture_output=True, timeout=30
    )
    assert done.returncode == (0 if name in POINTERS else 1), done.stderr


def test_git_lfs_takes_what_we_write(tmp_path: Path) -> None:
    binary = require_binary("git-lfs")
    for size in (1, 12345, 2**63 - 1):
        (tmp_path / "file").write_bytes(write_pointer(Pointer(OID, size)))
        done = subprocess.run(
            [binary, "pointer", "--check", "--strict", "--file=file"], cwd=tmp_path, capture_output=True
        )
        assert done.returncode == 0, done.stderr  # 2 would be: a pointer, but not the canonical one


def test_the_example_of_the_specification() -> None:
    assert write_pointer(Pointer(OID, 12345)) == SIMPLE


OIDS = st.text("0123456789abcdef", min_size=64, max_size=64)
SIZES = st.integers(0, 2**63 - 1)


@given(oid=OIDS, size=SIZES)
@example(oid="0" * 64, size=0)
@example(oid="f" * 64, size=2**63 - 1)
def test_round_trip(oid: str, size: int) -> None:
    written = write_pointer(Pointer(oid, size))
    assert len(written) < 200
    assert parse_pointer(written) == Pointer(oid, size)
    assert written.splitlines() == sorted(written.splitlines(), key=lambda line: (line[:1] != b"v", line))


def sound(found: Pointer | None) -> bool:
    return found is None or (is_oid(found.oid) and 0 <= found.size < 2**63)


@given(st.binary(max_size=2000))
def test_any_bytes_are_judged(data: bytes) -> None:
    assert sound(parse_pointer(data))


@given(
    st.lists(st.tuples(st.integers(0, len(EXTENDED)), st.integers(0, 5), st.binary(max_size=4)), max_size=8)
)
def test_mutations_are_judged(changes: list[tuple[int, int, bytes]]) -> None:
    data = EXTENDED
    for start, removed, inserted in changes:
        data = data[:start] + inserted + data[start + removed :]
    found = parse_pointer(data)
    assert sound(found)
    if found is not None:
        assert f"oid sha256:{found.oid}".encode() in data


@given(st.lists(st.sampled_from(SIMPLE.splitlines() + EXTENDED.splitlines() + [b"", b"size", b"a b"])))
def test_lines_in_any_order_are_judged(lines: list[bytes]) -> None:
    assert sound(parse_pointer(b"\n".join(lines)))


@given(st.text(max_size=70))
def test_what_an_oid_is(text: str) -> None:
    assert is_oid(text) == bool(re.match(r"[0-9a-f]{64}\Z", text))
