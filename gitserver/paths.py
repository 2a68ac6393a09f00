"""Paths that a commit may write: what any client can check out, and nothing that attacks one.

The rules for `.git` are those of git's own fsck (`is_hfs_dotgit`, `is_ntfs_dotgit`), applied to every
component, so that a commit made here is told why, instead of being refused as a broken pack.
"""

import re
import unicodedata

from core.errors import Unprocessable
from gitserver.revisions import shown

MAX_PATH_BYTES = 4096
MAX_NAME_BYTES = 255
MAX_DEPTH = 256

# Code points that HFS+ ignores in names.
_HFS_IGNORED = re.compile("[\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]")
# `.git` or its short name, where NTFS would stop reading: the end, a stream, blanks and dots.
_NTFS_DOTGIT = re.compile(r"(?:\.git|git~1)[ .]*(?::.*)?", re.IGNORECASE | re.ASCII | re.DOTALL)


class InvalidPath(Unprocessable):
    """A path that may not stand in a commit; the message says why."""

    code = "invalid_path"


def check_path(path: str) -> bytes:
    """The path as Git stores it.

    Raises:
        InvalidPath: with the rule it breaks.
    """
    try:
        raw = path.encode()
    except UnicodeEncodeError:
        raise _invalid(path, "is not UTF-8") from None
    if not path:
        raise _invalid(path, "is empty")
    if len(raw) > MAX_PATH_BYTES:
        raise _invalid(path, f"is longer than {MAX_PATH_BYTES} bytes")
    if any(unicodedata.category(character) == "Cc" for character in path):
        raise _invalid(path, "has control characters")
    names = path.split("/")
    if len(names) > MAX_DEPTH:
        raise _invalid(path, f"is deeper than {MAX_DEPTH} directories")
    for name in names:
        if not name:
            raise _invalid(path, "starts or ends with a slash, or has two in a row")
        if name in {".", ".."}:
            raise _invalid(path, "has a component `.` or `..`")
        if len(name.encode()) > MAX_NAME_BYTES:
            raise _invalid(path, f"has a component longer than {MAX_NAME_BYTES} bytes")
        if is_dotgit(name):
            raise _invalid(path, "has a component that some systems take for `.git`")
    return raw


def is_dotgit(name: str) -> bool:
    """Whether some file system takes a component for `.git`; a backslash separates on Windows."""
    if _HFS_IGNORED.sub("", name).lower() == ".git":
        return True
    return any(_NTFS_DOTGIT.fullmatch(part) for part in name.split("\\"))


def _invalid(path: str, reason: str) -> InvalidPath:
    return InvalidPath(f"the path {shown(path)!r} {reason}", path=shown(path))
