"""Watching the memory of a server and its children while something moves through it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.support.server import RunningServer

MIB = 1024**2
ALLOWED = 150 * MIB
EVERY_SECONDS = 0.05


@dataclass
class Gauge:
    """The most that was seen since the start, above the idle server."""

    server: RunningServer
    idle: dict[str, int] = field(default_factory=dict)
    most: dict[str, int] = field(default_factory=dict)
    samples: int = 0

    FIELDS = ("Rss", "Pss")

    def sample(self) -> None:
        for name in self.FIELDS:
            self.most[name] = max(self.most.get(name, 0), self.server.rss_with_children(name))
        self.samples += 1

    def above_idle(self, name: str) -> int:
        return self.most[name] - self.idle[name]


@contextmanager
def watched(server: RunningServer) -> Iterator[Gauge]:
    """Samples all the while, in a thread of its own."""
    gauge = Gauge(server, {name: server.rss_with_children(name) for name in Gauge.FIELDS})
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(EVERY_SECONDS):
            gauge.sample()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield gauge
    finally:
        stop.set()
        thread.join()


def assert_flat(gauge: Gauge) -> None:
    """Not more than 150 MiB above the idle server, at any moment that was looked at."""
    grown = {name: f"{gauge.above_idle(name) / MIB:.0f} MiB" for name in Gauge.FIELDS}
    assert gauge.samples > 10
    assert gauge.above_idle("Rss") < ALLOWED, grown
