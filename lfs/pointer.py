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
_OID = re.compile(r"[0-9a-f]{64}")
# What strconv.ParseInt of Go takes for a number that is not negative.
_SIZE = re.compile(r"\+?[0-9]+|-0+")
# One digit says where in the chain the extension stands; clients read no further than \w+.
_EXTENSION = re.compile(r"ext-([0-9])-\w+", re.ASCII)
# What unicode.IsSpace of Go is; str.strip would take four control characters more.
_SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
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
    """The one canonical pointer file. Clients write none for an empty file: it is its own pointer."""
    return f"version {VERSION}\noid sha256:{pointer.oid}\nsize {pointer.size}\n".encode()


def parse_pointer(data: bytes) -> Pointer | None:
    """What the file points to; None when it is no pointer.

    Judges as git-lfs 3.8 does, so that a push is asked for exactly the objects that clients will ask for:
    `version`, extensions, `oid`, `size`, and nothing else. Space around the whole, blank lines, CRLF and old
    versions are taken, too. Unlike `git lfs pointer --check` it takes neither the empty file, which stands
    for itself, nor 1024 bytes and more, which the specification rules out.
    """
    if len(data) >= MAX_POINTER_BYTES or b"version " not in data:
        return None
    text = data.decode("utf-8", "replace").strip(_SPACE)
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    pairs = [line.partition(" ")[::2] for line in lines if line]
    keys = [key for key, _ in pairs]
    if len(pairs) < 3 or [keys[0], *keys[-2:]] != ["version", "oid", "size"]:
        return None
    (_, version), *extensions, (_, oid), (_, size) = pairs
    if version not in _VERSIONS or not _are_extensions(extensions):
        return None
    if not _is_hash(oid) or _SIZE.fullmatch(size) is None or int(size) > _MAX_SIZE:
        return None
    return Pointer(oid.removeprefix("sha256:"), int(size))


def _are_extensions(pairs: list[tuple[str, str]]) -> bool:
    found = [_EXTENSION.match(key) for key, _ in pairs]
    places = {one[1] for one in found if one is not None}
    return len(places) == len(pairs) and all(_is_hash(value) for _, value in pairs)


def _is_hash(value: str) -> bool:
    return value.startswith("sha256:") and is_oid(value.removeprefix("sha256:"))
