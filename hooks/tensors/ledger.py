"""What is known of contents: the digests of their tensors, and which contents wait to be read for them."""

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete, or_, select, update

from core.database import Database
from core.models import TensorDigests, TensorDigestTask, now
from core.upsert import insert_into
from hooks.tensors.weights import Tensor, pack, unpack
from hooks.version import VersionFile

# A lease is never renewed: it is as long as reading takes at this speed, and a minute more.
_SLOWEST_BYTES_PER_SECOND = 5_000_000
_LEASE = timedelta(minutes=1)
_RETRY = timedelta(minutes=5)
_ATTEMPTS = 5
_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class DigestTask:
    """A content to be read, at a path of a commit that has it."""

    repository_id: str
    commit: str
    file: VersionFile
    attempts: int


class Ledger:
    """Rows by the digest of a content. Who may see them is decided by the repository that has it.

    Every method raises `DatabaseUnavailable`.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, digests: Collection[str]) -> dict[str, Sequence[Tensor]]:
        """What is known, by the digest of the file."""
        asked = sorted(set(digests))
        packed: list[tuple[str, bytes]] = []
        async with self._database.read() as session:
            for start in range(0, len(asked), _AT_ONCE):
                query = select(TensorDigests.digest, TensorDigests.data).where(
                    TensorDigests.digest.in_(asked[start : start + _AT_ONCE])
                )
                packed += [(digest, data) for digest, data in await session.execute(query)]
        return await asyncio.to_thread(lambda: {digest: unpack(data) for digest, data in packed})

    async def store(self, found: Mapping[str, Sequence[Tensor]]) -> None:
        """Keeps digests for good; what was queued for them is done."""
        if not found:
            return
        packed = await asyncio.to_thread(lambda: {digest: pack(tensors) for digest, tensors in found.items()})
        async with self._database.transaction() as session:
            for digest, data in packed.items():
                row = {"digest": digest, "data": data, "computed_at": now()}
                await session.execute(
                    insert_into(session, TensorDigests).values(**row).on_conflict_do_nothing()
                )
            await session.execute(delete(TensorDigestTask).where(TensorDigestTask.digest.in_(packed)))

    async def enqueue(self, repository_id: str, commit: str, files: Iterable[VersionFile]) -> None:
        """Has contents read in the background; one that waits already is not read twice."""
        rows = [
            {
                "digest": file.digest,
                "repository_id": repository_id,
                "commit": commit,
                "path": file.path,
                "parser": file.parser,
                "size": file.size,
                "due_at": now(),
                "attempts": 0,
            }
            for file in files
        ]
        if not rows:
            return
        async with self._database.transaction() as session:
            for row in rows:
                await session.execute(
                    insert_into(session, TensorDigestTask).values(**row).on_conflict_do_nothing()
                )

    async def claim(self) -> DigestTask | None:
        """The smallest content that waits; ours for as long as reading it may take."""
        moment = now()
        due = (
            select(TensorDigestTask)
            .where(
                TensorDigestTask.due_at <= moment,
                or_(TensorDigestTask.leased_until.is_(None), TensorDigestTask.leased_until < moment),
            )
            .order_by(TensorDigestTask.size)
            .limit(1)
        )
        async with self._database.read() as session:
            if await session.scalar(due) is None:
                return None
        async with self._database.transaction() as session:
            task = await session.scalar(due.with_for_update(skip_locked=True))
            if task is None:
                return None
            task.attempts += 1
            task.leased_until = moment + _LEASE + timedelta(seconds=task.size / _SLOWEST_BYTES_PER_SECOND)
            return DigestTask(
                task.repository_id,
                task.commit,
                VersionFile(task.path, task.digest, task.size, task.parser),
                task.attempts,
            )

    async def drop(self, task: DigestTask) -> None:
        """There is nothing to be read any more; whoever needs it queues it again."""
        async with self._database.transaction() as session:
            await session.execute(delete(TensorDigestTask).where(TensorDigestTask.digest == task.file.digest))

    async def postpone(self, task: DigestTask) -> None:
        """It could not be read: again in a while, and after five times no more."""
        if task.attempts >= _ATTEMPTS:
            await self.drop(task)
            return
        async with self._database.transaction() as session:
            await session.execute(
                update(TensorDigestTask)
                .where(TensorDigestTask.digest == task.file.digest)
                .values(due_at=now() + _RETRY * task.attempts, leased_until=None)
            )
