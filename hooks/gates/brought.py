"""What the new blobs of a push are to the gates: collected in the one pass over them."""

import time
from collections.abc import Set
from dataclasses import dataclass, field
from typing import Final

from core.settings import GatesSettings
from gitserver.policy import ProposedPush
from gitserver.process import GitRunner
from hooks.formats.source import BytesSource
from hooks.gates.new_blobs import MAX_READ_BYTES, NewBlob, visit_new_blobs
from hooks.gates.pickle_files import Scan, may_be_pickle, scan
from hooks.gates.pickle_walk import Budget
from hooks.gates.secret_search import Hit, find_secrets, may_have_secrets
from hooks.trees import TreeFile
from lfs.pointer import parse_pointer

# For all pickles of a push together.
_OPERATIONS: Final = 20_000_000
# Beyond it a push is too large to be searched for secrets.
_TEXT_BYTES: Final = 512 * 1024**2
_TEXT_SECONDS: Final = 30.0
_LISTED: Final = 10_000
_PICKLES: Final = 100_000


@dataclass(slots=True)
class Brought:
    """New blobs that matter to some gate; the lists of gates that are off stay empty.

    Attributes:
        tips: which of the push's tips are new commits.
        big: blobs that are too large for Git.
        secrets: text files with what was found in them.
        unsearched: how many files there was no time to search.
        scans: pickles that were looked at.
        pickles: those that are still to be looked at, because they are large or in LFS.
        pickles_cut: there are more of them than anybody looks at.
        pickle_paths: of all of both; budget: what may still be done to look at them.
    """

    tips: set[str] = field(default_factory=set)
    big: list[NewBlob] = field(default_factory=list)
    secrets: list[tuple[NewBlob, list[Hit]]] = field(default_factory=list)
    unsearched: list[NewBlob] = field(default_factory=list)
    scans: list[tuple[NewBlob, Scan]] = field(default_factory=list)
    pickles: list[TreeFile] = field(default_factory=list)
    pickles_cut: bool = False
    pickle_paths: set[str] = field(default_factory=set)
    budget: Budget = field(default_factory=lambda: Budget(_OPERATIONS))


async def collect(git: GitRunner, push: ProposedPush, settings: GatesSettings) -> Brought:
    """Raises `ObjectsUnreadable`."""
    collecting = _Collecting(settings, push.cleared)
    tips = {one.peeled or one.new for one in push.updates if not one.deletes}
    brought = collecting.brought
    brought.tips = await visit_new_blobs(
        git, push.quarantine, tips=tips, wants=collecting.wants, take=collecting.take
    )
    return brought


class _Collecting:
    def __init__(self, settings: GatesSettings, cleared: Set[bytes]) -> None:
        self.brought = Brought()
        self._cleared = cleared
        self._big_bytes = settings.big_file_bytes if settings.big_file != "off" else None
        self._search = settings.secret != "off"  # noqa: S105 - a level
        self._pickles = settings.pickle != "off"
        self._text_bytes = _TEXT_BYTES
        self._text_until = time.monotonic() + _TEXT_SECONDS

    def wants(self, blob: NewBlob) -> bool:
        brought = self.brought
        if self._big_bytes is not None and blob.size >= self._big_bytes and len(brought.big) < _LISTED:
            brought.big.append(blob)
        if self._pickles and may_be_pickle(blob.path):
            if len(brought.pickle_paths) == _PICKLES:
                brought.pickles_cut = True
                return False
            brought.pickle_paths.add(blob.path)
            if blob.size > MAX_READ_BYTES:
                brought.pickles.append(TreeFile(blob.path, blob.oid, blob.size))
                return False
            return True
        if not self._search or not may_have_secrets(blob) or bytes.fromhex(blob.oid) in self._cleared:
            return False
        self._text_bytes -= blob.size
        if self._text_bytes >= 0 and time.monotonic() < self._text_until:
            return True
        brought.unsearched.append(blob)
        return False

    def take(self, blob: NewBlob, data: bytes) -> None:
        brought = self.brought
        if self._pickles and may_be_pickle(blob.path):
            pointer = parse_pointer(data)
            if pointer is not None:
                brought.pickles.append(TreeFile(blob.path, blob.oid, pointer.size, pointer.oid))
            else:
                brought.scans.append((blob, scan(BytesSource(data), brought.budget)))
        elif len(brought.secrets) < _LISTED and (hits := find_secrets(data)):
            brought.secrets.append((blob, hits))
