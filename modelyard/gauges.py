"""Metrics that are read from the running services when somebody looks, instead of being counted."""

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from core.errors import Unavailable
from gitserver.process import running_children
from modelyard.drain import Drain
from modelyard.services import Services

_MEASURE_SECONDS = 60.0


class Gauges(Collector):
    """Requests and children in flight, the snapshot cache, and the maintenance queue."""

    def __init__(self, services: Services, drain: Drain) -> None:
        self._services = services
        self._drain = drain
        self._queue = float("nan")
        self._cache_bytes = float("nan")
        self._measured = -_MEASURE_SECONDS

    async def refresh(self) -> None:
        """Brings up to date what cannot be read at once; the size of the cache once in a minute."""
        self._queue = await self._queue_length()
        if time.monotonic() - self._measured >= _MEASURE_SECONDS:
            self._measured = time.monotonic()
            self._cache_bytes = float(
                await asyncio.to_thread(_bytes_below, self._services.settings.cache_dir)
            )

    def collect(self) -> Iterator[Metric]:
        """The metrics; called by the registry."""
        snapshots, publisher = self._services.snapshots, self._services.publisher
        for name, text, value in (
            ("modelyard_http_in_flight", "HTTP requests being answered.", self._drain.in_flight),
            ("modelyard_git_children", "Git child processes that run.", running_children()),
            ("modelyard_cache_bytes", "Bytes in this node's cache of repositories.", self._cache_bytes),
            ("modelyard_maintenance_queue", "Repositories that wait for maintenance.", self._queue),
        ):
            yield GaugeMetricFamily(name, text, value=value)
        for name, text, value in (
            ("modelyard_snapshot_hits", "Snapshots that were in the cache.", snapshots.hits),
            ("modelyard_snapshot_misses", "Snapshots that had to be built.", snapshots.misses),
            ("modelyard_packs_received", "Packs that pushes, commits and imports added.", publisher.packs),
            ("modelyard_pack_received_bytes", "Bytes of those packs.", publisher.pack_bytes),
        ):
            yield CounterMetricFamily(name, text, value=value)

    async def _queue_length(self) -> float:
        """NaN while the database is away, so that a scrape still works."""
        try:
            return float(await self._services.maintenance.queue_length())
        except Unavailable:
            return float("nan")


def _bytes_below(directory: Path) -> int:
    """What the files take, each counted once however many links it has."""
    sizes: dict[int, int] = {}
    for folder, _, files in os.walk(directory):
        for name in files:
            try:
                status = os.lstat(os.path.join(folder, name))  # noqa: PTH118 - a Path per file is slow
            except FileNotFoundError:
                continue  # swept meanwhile
            sizes[status.st_ino] = status.st_size
    return sum(sizes.values())
