"""Prometheus metrics of one worker, in a registry of their own."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

_SECONDS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 30, 120, 600)


class WorkerRegistry(CollectorRegistry):
    """A registry that puts `worker="N"` on everything, because a scrape meets one worker of several."""

    def __init__(self, worker: str) -> None:
        super().__init__(auto_describe=True)
        self._worker = worker

    def collect(self) -> Iterable[Metric]:
        """Every metric, with the label added to each sample."""
        for metric in super().collect():
            metric.samples = [
                sample._replace(labels={**sample.labels, "worker": self._worker}) for sample in metric.samples
            ]
            yield metric


class Metrics:
    """What the faces report. Serves as the observer of the SSH server and of Git transfers."""

    def __init__(self, worker: str = "1") -> None:
        self.registry = WorkerRegistry(worker)
        for collector in (ProcessCollector, PlatformCollector):
            collector(registry=self.registry)
        self._requests = Counter(
            "modelyard_http_requests",
            "HTTP requests answered; 499 is a client that went away.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self._request_seconds = Histogram(
            "modelyard_http_request_seconds",
            "Time to answer, streamed bodies included.",
            ("route",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._transfers = Counter(
            "modelyard_git_transfers",
            "Git services that ended, by how they did.",
            ("transport", "service", "outcome"),
            registry=self.registry,
        )
        self._transfer_seconds = Histogram(
            "modelyard_git_transfer_seconds",
            "Duration of Git services.",
            ("transport", "service"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._bytes = Counter(
            "modelyard_git_bytes",
            "Bytes of Git services, as they travelled.",
            ("transport", "service", "direction"),
            registry=self.registry,
        )
        self._lfs_transfers = Counter(
            "modelyard_lfs_transfers",
            "Uploads and downloads of large files through this server, by how they ended.",
            ("operation", "outcome"),
            registry=self.registry,
        )
        self._lfs_seconds = Histogram(
            "modelyard_lfs_transfer_seconds",
            "Duration of uploads and downloads of large files.",
            ("operation",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._lfs_bytes = Counter(
            "modelyard_lfs_bytes",
            "Bytes of large files that moved through this server.",
            ("operation",),
            registry=self.registry,
        )
        self._pushes = Counter(
            "modelyard_pushes",
            "Pushes, API commits and imports that changed a ref.",
            registry=self.registry,
        )
        self._ssh_connections = Gauge(
            "modelyard_ssh_connections", "SSH connections that are open.", registry=self.registry
        )

    def request_answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Counts one HTTP request. `route` is the template, never the path."""
        self._requests.labels(method, route, str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)

    def transfer(
        self, service: str, transport: str, outcome: str, received: int, sent: int, seconds: float
    ) -> None:
        """Counts a Git service that ended, with its bytes as they travelled."""
        self._ended(transport, service, outcome, seconds)
        self.transferred(transport, service, received=received, sent=sent)

    def transferred(self, transport: str, service: str, *, received: int, sent: int) -> None:
        """Counts bytes of a Git service."""
        self._bytes.labels(transport, service, "in").inc(received)
        self._bytes.labels(transport, service, "out").inc(sent)

    def lfs_transfer(self, operation: str, outcome: str, size: int, seconds: float) -> None:
        """Counts an upload or download of a large file that ended."""
        self._lfs_transfers.labels(operation, outcome).inc()
        self._lfs_seconds.labels(operation).observe(seconds)
        self._lfs_bytes.labels(operation).inc(size)

    def pushed(self, _repository_id: str) -> None:
        """Counts an accepted change of refs; a listener of the publisher."""
        self._pushes.inc()

    def connection_opened(self) -> None:
        """An SSH connection was accepted."""
        self._ssh_connections.inc()

    def connection_closed(self) -> None:
        """An SSH connection ended."""
        self._ssh_connections.dec()

    def command_started(self, service: str) -> None:
        """An SSH command begins; it is counted when it ends."""

    def command_finished(self, service: str, outcome: str, seconds: float) -> None:
        """An SSH command ended."""
        self._ended("ssh", service, outcome, seconds)

    def _ended(self, transport: str, service: str, outcome: str, seconds: float) -> None:
        self._transfers.labels(transport, service, outcome).inc()
        self._transfer_seconds.labels(transport, service).observe(seconds)

    def add(self, collector: Collector) -> None:
        """Adds what is read only when somebody looks."""
        self.registry.register(collector)

    def text(self) -> bytes:
        """Everything in the Prometheus text format."""
        return generate_latest(self.registry)
