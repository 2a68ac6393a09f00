"""Reads contents in the background, one at a time, for the digests of their tensors."""

import asyncio
from contextlib import suppress

import structlog

from core import failpoints
from core.errors import ModelyardError, NotFound
from core.polling import Poll
from hooks.errors import ContentMissing
from hooks.tensors.ledger import Ledger
from hooks.tensors.queueing import DigestQueue, HeldContent, LeaseLost
from hooks.tensors.reading import WeightReader
from hooks.tensors.weights import Weights

log = structlog.get_logger(__name__)

BEFORE_STORE = failpoints.declare("tensors.before-store", "a content is read, its digests are not stored")


class Digester:
    """Works the queue. Any number of workers may share it; each content is read by one at a time."""

    def __init__(
        self, queue: DigestQueue, ledger: Ledger, reader: WeightReader, *, poll_seconds: float
    ) -> None:
        self._queue = queue
        self._ledger = ledger
        self._reader = reader
        self._poll = Poll("tensors", poll_seconds)

    def hint(self) -> None:
        """Something may be queued: do not wait for the next look."""
        self._poll.hint()

    async def run_forever(self) -> None:
        """Until cancelled; a content that is being read then is read again by whoever comes next."""
        await self._poll.forever(self.run_due)

    async def run_due(self) -> int:
        """Reads all that waits; returns how many contents were tried. Raises `DatabaseUnavailable`."""
        tried = 0
        while (held := await self._queue.claim()) is not None:
            await self._work(held)
            tried += 1
        return tried

    async def _work(self, held: HeldContent) -> None:
        ended = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(held.keep(ended))
                outcome = await self._read(held)
                ended.set()
            await self._settle(held, outcome)
        except* LeaseLost:
            log.warning("tensors.lease_lost", digest=held.file.digest)

    async def _read(self, held: HeldContent) -> "Weights | Exception":
        try:
            async with self._reader.open(held.repository_id, [held.file]) as weights:
                return await weights.digest(held.file)
        except asyncio.CancelledError:
            with suppress(LeaseLost, ModelyardError):
                await asyncio.shield(held.release())  # nobody need wait for the lease to end
            raise
        except (ContentMissing, ModelyardError) as error:
            return error
        except Exception as error:
            log.exception("tensors.read_fault", digest=held.file.digest)
            return error

    async def _settle(self, held: HeldContent, outcome: "Weights | Exception") -> None:
        file = held.file
        if outcome is None or isinstance(outcome, ContentMissing | NotFound):
            log.info("tensors.gone", digest=file.digest, repository_id=held.repository_id)
            await held.drop()
        elif isinstance(outcome, Exception):
            log.warning("tensors.not_read", digest=file.digest, attempts=held.attempts, error=str(outcome))
            await held.postpone()
        else:
            failpoints.reach(BEFORE_STORE)
            await self._ledger.store(file.parser or "", {file.digest: outcome})
            log.info("tensors.read", digest=file.digest, bytes=file.size)
