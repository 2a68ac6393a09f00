"""Reads contents in the background, one at a time, for the digests of their tensors."""

import asyncio
import random
from contextlib import suppress

import structlog

from core import failpoints
from core.errors import ModelyardError, NotFound
from hooks.tensors.ledger import DigestTask, Ledger
from hooks.tensors.reading import WeightReader

log = structlog.get_logger(__name__)

BEFORE_STORE = failpoints.declare("tensors.before-store", "a content is read, its digests are not stored")


class Digester:
    """Works the queue. Any number of workers may share it; each content is read by one at a time."""

    def __init__(self, ledger: Ledger, reader: WeightReader, *, poll_seconds: float) -> None:
        self._ledger = ledger
        self._reader = reader
        self._poll_seconds = poll_seconds
        self._wake = asyncio.Event()

    def hint(self) -> None:
        """Something may be queued: do not wait for the next look."""
        self._wake.set()

    async def run_forever(self) -> None:
        """Until cancelled; a content that is being read then is read again after its lease."""
        while True:
            self._wake.clear()
            try:
                await self.run_due()
            except ModelyardError as error:
                log.warning("tensors.postponed", code=error.code, error=error.message)
            except Exception:
                # A fault here must not end the transfers beside it.
                log.exception("tensors.fault")
            with suppress(TimeoutError):
                # Spread out, so that workers do not ask in step.
                async with asyncio.timeout(self._poll_seconds * random.uniform(0.8, 1.2)):  # noqa: S311
                    await self._wake.wait()

    async def run_due(self) -> int:
        """Reads all that waits; returns how many contents were tried. Raises `DatabaseUnavailable`."""
        tried = 0
        while (task := await self._ledger.claim()) is not None:
            await self._work(task)
            tried += 1
        return tried

    async def _work(self, task: DigestTask) -> None:
        try:
            read = await self._reader.digest(task.repository_id, task.commit, [task.file])
        except NotFound:
            await self._ledger.drop(task)
            return
        except ModelyardError as error:
            log.info("tensors.not_read", digest=task.file.digest, attempts=task.attempts, error=error.message)
            await self._ledger.postpone(task)
            return
        failpoints.reach(BEFORE_STORE)
        found = {digest: tensors for digest, tensors in read.items() if tensors}
        if found:
            await self._ledger.store(found)
        else:
            await self._ledger.drop(task)
        log.info("tensors.read", digest=task.file.digest, bytes=task.file.size)
