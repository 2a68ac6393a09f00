"""The one grammar of object keys, the same for every store."""

import re

# S3 allows 1024 bytes; the rest is left for the prefix of `[storage] prefix`.
MAX_KEY_LENGTH = 800
# The longest file name of the usual Linux file systems.
MAX_SEGMENT_LENGTH = 255

_SEGMENT = re.compile(r"[A-Za-z0-9._-]+")


def check_key(key: str) -> str:
    """Returns the key itself, or raises `ValueError` when no store may see it."""
    if len(key) > MAX_KEY_LENGTH or not all(map(_is_segment, key.split("/"))):
        raise ValueError(f"not an object key: {key[:100]!r}")
    return key


def check_prefix(prefix: str) -> str:
    """Returns the prefix itself: `""`, or whole segments that end in `/`; else raises `ValueError`."""
    if prefix and not prefix.endswith("/"):
        raise ValueError(f"a prefix is empty or ends in a slash: {prefix[:100]!r}")
    if prefix:
        check_key(prefix.removesuffix("/"))
    return prefix


def check_range(offset: int, length: int | None) -> None:
    """Raises `ValueError` for a negative offset or length."""
    if offset < 0 or (length is not None and length < 0):
        raise ValueError(f"not a byte range: offset {offset}, length {length}")


def _is_segment(segment: str) -> bool:
    return (
        len(segment) <= MAX_SEGMENT_LENGTH
        and segment not in {".", ".."}
        and _SEGMENT.fullmatch(segment) is not None
    )
