"""What is known of contents: the digests of their tensors."""

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice

from sqlalchemy import delete, select

from core.database import Database
from core.models import TensorDigests, TensorDigestTask, now
from core.upsert import insert_into
from hooks.tensors.weights import Tensor, pack, unpack
from hooks.version import VersionFile

# A file of a hundred thousand tensors has a row of some megabytes.
_AT_ONCE = 16


class TooManyTensors(Exception):
    """More than anybody has memory for."""


class Ledger:
    """Rows by the digest of a content. Whoever asks knows that the repository has it (invariant I7).

    Every method raises `DatabaseUnavailable`.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, files: Collection[VersionFile], most: int) -> dict[str, Sequence[Tensor]]:
        """What is known, by the digest of the file.

        Raises:
            TooManyTensors: it is more than `most` tensors in all.
        """
        kinds = {file.digest: file.parser or "" for file in files}
        found: dict[str, Sequence[Tensor]] = {}
        rest = iter(kinds)
        while some := list(islice(rest, _AT_ONCE)):
            query = select(TensorDigests.digest, TensorDigests.data).where(TensorDigests.digest.in_(some))
            async with self._database.read() as session:
                rows = [(digest, data) for digest, data in await session.execute(query)]
            if rows:
                unpacked = await asyncio.to_thread(_unpack, rows, kinds)
                most -= sum(map(len, unpacked.values()))
                found |= unpacked
            if most < 0:
                raise TooManyTensors
        return found

    async def store(self, kind: str, found: Mapping[str, Sequence[Tensor]]) -> None:
        """Keeps digests of files of one format for good; what was queued for them is done."""
        if not found:
            return
        packed = await asyncio.to_thread(_pack, kind, found)
        async with self._database.transaction() as session:
            for digest, data in packed:
                values = {"data": data, "computed_at": now()}
                await session.execute(
                    insert_into(session, TensorDigests)
                    .values(digest=digest, **values)
                    .on_conflict_do_update(index_elements=[TensorDigests.digest], set_=values)
                )
            await session.execute(delete(TensorDigestTask).where(TensorDigestTask.digest.in_(found)))


def _unpack(rows: Iterable[tuple[str, bytes]], kinds: Mapping[str, str]) -> dict[str, Sequence[Tensor]]:
    """Without those that cannot be used: they are read anew, and written over."""
    unpacked = ((digest, unpack(kinds[digest], data)) for digest, data in rows)
    return {digest: tensors for digest, tensors in unpacked if tensors is not None}


def _pack(kind: str, found: Mapping[str, Sequence[Tensor]]) -> list[tuple[str, bytes]]:
    """In one order, so that two who write do not wait for each other."""
    return [(digest, pack(kind, found[digest])) for digest in sorted(found)]
