"""What a server does with large files by itself, in the background."""

from dataclasses import dataclass

import structlog

from core.polling import Poll
from core.settings import LfsSettings
from lfs.abandoned import AbandonedUploads
from lfs.collector import Collector
from lfs.orphans import Orphans
from lfs.stores import Stores
from storage.protocol import StoreUnavailable

log = structlog.get_logger(__name__)

_HOURLY = 3600.0


@dataclass(frozen=True, slots=True)
class UpkeepReport:
    """How many abandoned uploads and orphans went; `bytes` are those of the orphans."""

    uploads: int = 0
    orphans: int = 0
    bytes: int = 0


class Upkeep:
    """Any number of workers may run it; a collection is begun by one of them only."""

    def __init__(
        self,
        stores: Stores,
        orphans: Orphans,
        abandoned: AbandonedUploads,
        collector: Collector,
        settings: LfsSettings,
    ) -> None:
        self._stores = stores
        self._orphans = orphans
        self._abandoned = abandoned
        self._collector = collector
        self._hours = settings.gc_hours
        # Parts of an upload may wait for so long, and longer than a day no transfer takes to go on.
        self._draft_seconds = 24 * 3600 * max(settings.upload_days, 1)

    async def run_forever(self) -> None:
        """Until cancelled: sweeps every hour, and collects every `[lfs] gc_hours` unless that is 0."""
        await Poll("lfs.upkeep", _HOURLY).forever(self.run)

    async def run(self) -> None:
        """Does once what is due."""
        try:
            await self.sweep()
        except StoreUnavailable as error:
            # One store that is away must not keep the other's objects from being collected.
            log.warning("lfs.sweep_failed", error=error.message)
        # Half an hour less, so that a pass that comes a little early does not wait for the next one.
        if self._hours > 0 and await self._collector.due(self._hours - 0.5):
            await self._collector.collect()

    async def sweep(self) -> UpkeepReport:
        """Drops uploads that nobody goes on with, and bytes that no row names.

        Raises:
            StoreUnavailable, DatabaseUnavailable: the rest is left to the next pass.
        """
        uploads = await self._abandoned.sweep()
        swept = await self._orphans.sweep()
        for kind in self._stores.kinds():
            await self._stores[kind].sweep_temp(self._draft_seconds)
        return UpkeepReport(uploads, swept.objects, swept.bytes)
