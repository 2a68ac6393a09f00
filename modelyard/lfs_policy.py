"""Invariant I2 for large files: no ref reaches a pointer whose object the repository cannot serve.

It holds for pushes and for commits over the API. Imports of whole repositories bring their pointers before
their objects, and are let through.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from core.access import Actor, Permission, authorize_again
from core.database import Database
from core.errors import PermissionDenied, RepositoryNotFound
from core.models import Repository
from core.repositories import RepositoryInfo
from core.settings import LfsSettings
from gitserver.listings import adds
from gitserver.policy import ProposedPush, guilty
from gitserver.process import GitRunner
from gitserver.small_blobs import SmallBlob, new_blobs
from gitserver.updates import RefUpdate
from lfs.objects import Objects, StoredObject
from lfs.pointer import MAX_POINTER_BYTES, Pointer, parse_pointer

ALLOW_MISSING = "lfs.allow-missing"

# Clients never upload it, and need nobody to download it.
_EMPTY = Pointer(sha256(b"").hexdigest(), 0)
_ASKED_AT_ONCE = 2000
_COUNTED = 10_000
_LISTED = 100


@dataclass(frozen=True, slots=True)
class _Lack:
    """A pointer that leads nowhere; `stored` is what there is instead of its object, if anything."""

    blob: str
    path: str
    pointer: Pointer
    stored: StoredObject | None

    def __str__(self) -> str:
        text = f"  {self.pointer.oid} {self.path}"
        if self.stored is None:
            return text
        if self.stored.damaged:
            return f"{text} (damaged on the server; uploading it again mends it)"
        return f"{text} (has {self.stored.size} bytes, the pointer says {self.pointer.size})"


class MissingObjects:
    """Refuses pushes of pointers without their objects, unless `[lfs] missing_objects` allows them.

    An administrator of the repository can let one push through with `git push -o lfs.allow-missing`, which
    leaves a trace in the audit log.
    """

    def __init__(self, database: Database, git: GitRunner, objects: Objects, settings: LfsSettings) -> None:
        self._database = database
        self._git = git
        self._objects = objects
        self._settings = settings

    async def before_pack(
        self, repository: RepositoryInfo, actor: Actor, updates: Sequence[RefUpdate]
    ) -> Mapping[str, str]:
        """Refuses nothing: pointers are in the pack."""
        return {}

    async def check(self, push: ProposedPush) -> Mapping[str, str]:
        """Refuses the updates that bring such pointers, and lists them."""
        if self._settings.missing_objects == "allow" or all(one.deletes for one in push.updates):
            return {}
        lacks = await self._lacks(push)
        if not lacks:
            return {}
        oids = list(dict.fromkeys(lack.pointer.oid for lack in lacks))
        whole = len(lacks) < _COUNTED
        count = f"{'' if whole else 'at least '}{len(oids)}"
        if ALLOW_MISSING in push.options:
            if await self._administers(push):
                push.override("lfs.missing_objects", count=len(oids), oids=oids[:_LISTED])
                push.say(f"{ALLOW_MISSING}: {count} LFS objects are missing on the server")
                return {}
            push.say(f"{ALLOW_MISSING} is for administrators of this repository")
        push.say("The server does not have these LFS objects, or not as their pointers say:")
        for lack in lacks[:_LISTED]:
            push.say(str(lack))
        if len(lacks) > _LISTED:
            push.say(f"  and {'' if whole else 'at least '}{len(lacks) - _LISTED} more")
        push.say("`git lfs push --all <remote>` uploads them; then push again.")
        nouns = "LFS object is" if len(oids) == 1 else "LFS objects are"
        reason = f"{count} {nouns} missing on the server: run `git lfs push --all <remote>`"
        blobs = frozenset(lack.blob.encode() for lack in lacks)

        async def brings_one(update: RefUpdate) -> bool:
            return not whole or await adds(self._git, push.quarantine, update, blobs)

        return {one.name: reason for one in await guilty(push.updates, brings_one)}

    async def _lacks(self, push: ProposedPush) -> list[_Lack]:
        """One for each pointer file that leads nowhere, the first 10,000 of them."""
        lacks: list[_Lack] = []
        some: list[tuple[SmallBlob, Pointer]] = []
        async with new_blobs(self._git, push.quarantine, max_bytes=MAX_POINTER_BYTES - 1) as blobs:
            async for blob in blobs:
                pointer = parse_pointer(blob.data)
                if pointer is None or pointer == _EMPTY:
                    continue
                some.append((blob, pointer))
                if len(some) == _ASKED_AT_ONCE:
                    lacks += await self._judge(push.repository.id, some)
                    some = []
                    if len(lacks) >= _COUNTED:
                        break
        lacks += await self._judge(push.repository.id, some)
        return lacks[:_COUNTED]

    async def _judge(self, repository_id: str, some: Sequence[tuple[SmallBlob, Pointer]]) -> list[_Lack]:
        found = await self._objects.find(repository_id, {pointer.oid for _, pointer in some})
        return [
            _Lack(blob.oid, blob.path, pointer, found.get(pointer.oid))
            for blob, pointer in some
            if not _serves(found.get(pointer.oid), pointer)
        ]

    async def _administers(self, push: ProposedPush) -> bool:
        async with self._database.read() as session:
            repository = await session.get(Repository, push.repository.id)
            if repository is None:
                raise RepositoryNotFound("no such repository")
            try:
                await authorize_again(session, push.actor, repository, Permission.ADMIN)
            except PermissionDenied:
                return False
        return True


def _serves(stored: StoredObject | None, pointer: Pointer) -> bool:
    return stored is not None and not stored.damaged and stored.size == pointer.size
