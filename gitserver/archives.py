"""A revision as one file to download."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum

from gitserver.process import GitRunner
from gitserver.queries import stream
from gitserver.revisions import Revision
from gitserver.snapshots import Snapshot

_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]+")


class ArchiveFormat(StrEnum):
    ZIP = "zip"
    TAR_GZ = "tar.gz"


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive in the making. A stream that fails raises; it never ends early without saying so."""

    file_name: str
    oid: str
    chunks: AsyncIterator[bytes]


@asynccontextmanager
async def open_archive(
    git: GitRunner, snapshot: Snapshot, revision: Revision, archive_format: ArchiveFormat, name: str
) -> AsyncIterator[Archive]:
    """All files of a revision below `<name>-<revision>/`."""
    stem = _UNSAFE.sub("-", f"{name}-{revision.short}").strip("-.")
    arguments = ["archive", f"--format={archive_format}", f"--prefix={stem}/", revision.oid]
    # Large models take their time: the client's patience is the limit.
    async with stream(git, snapshot, arguments, cpu_seconds=None) as output:
        yield Archive(f"{stem}.{archive_format}", revision.oid, output.chunks())
