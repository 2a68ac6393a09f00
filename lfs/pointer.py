"""Pointer files: what a repository holds in place of a large file.

The format is that of https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md: UTF-8 lines `key value`, LF
at the end of each, `version` first, the other keys in byte order.
"""

import re
from dataclasses import dataclass

# The specification's limit: a longer file is no pointer, so that nobody must read it to know.
MAX_POINTER_BYTES = 1024

VERSION = "https://git-lfs.github.com/spec/v1"
# What clients before 1.0 wrote, and today's still read.
_VERSIONS = frozenset({VERSION, "https://hawser.github.com/spec/v1", "http://git-media.io/v/2"})
_KEY = re.compile(r"[a-z0-9.-]+")
_OID = re.compile(r"[0-9a-f]{64}")
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")
_MAX_SIZE = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Pointer:
    """`oid` is the sha256 of the content in lower-case hexadecimal, `size` its length in bytes."""

    oid: str
    size: int


def is_oid(text: str) -> bool:
    """Whether this is 64 lower-case hexadecimal digits."""
    return _OID.fullmatch(text) is not None


def write_pointer(pointer: Pointer) -> bytes:
    """The one canonical pointer file."""
    return f"version {VERSION}\noid sha256:{pointer.oid}\nsize {pointer.size}\n".encode()


def parse_pointer(data: bytes) -> Pointer | None:
    """What the file points to; None when it is no pointer.

    As git-lfs does, it takes old versions, extension lines, unknown keys, and CRLF or missing newlines at
    the end; keys out of order are no pointer.
    """
    if len(data) >= MAX_POINTER_BYTES or not data.startswith(b"version "):
        return None
    try:
        lines = data.decode("utf-8").strip().splitlines()
    except UnicodeDecodeError:
        return None
    pairs = [line.partition(" ")[::2] for line in lines]
    keys = [key for key, _ in pairs]
    if keys[1:] != sorted(set(keys[1:])) or not all(map(_KEY.fullmatch, keys)):
        return None
    values = dict(pairs)
    algorithm, _, oid = values.get("oid", "").partition(":")
    size = values.get("size", "")
    if values["version"] not in _VERSIONS or algorithm != "sha256" or not is_oid(oid):
        return None
    if _SIZE.fullmatch(size) is None or int(size) > _MAX_SIZE:
        return None
    return Pointer(oid, int(size))
