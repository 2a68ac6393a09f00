"""A real MinIO server for tests, on loopback and in a directory of its own."""

import asyncio
import http.client
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from core.settings import StorageSettings
from tests.support.binaries import require_binary
from tests.support.children import keep, release

ACCESS_KEY = "modelyard-test"
SECRET_KEY = "modelyard-test-secret"
READY_SECONDS = 60.0


class MinioServer:
    """Blocking; from a coroutine call `start` and `stop` through `asyncio.to_thread`.

    The port and the data stay the same over `stop` and `start`, as in an outage.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    def settings(
        self, *, bucket: str = "modelyard", prefix: str = "", part_bytes: int = 5 * 1024**2
    ) -> StorageSettings:
        """`[storage]` of a server that uses this MinIO."""
        return StorageSettings(
            kind="minio",
            endpoint=self.endpoint,
            bucket=bucket,
            prefix=prefix,
            access_key=ACCESS_KEY,
            secret_key=SECRET_KEY,
            secure=False,
            part_bytes=part_bytes,
        )

    def environment(self, *, bucket: str = "modelyard", prefix: str = "") -> dict[str, str]:
        """The same for a child process."""
        settings = self.settings(bucket=bucket, prefix=prefix)
        names = ("kind", "endpoint", "bucket", "prefix", "access_key", "secret_key", "secure", "part_bytes")
        return {f"MODELYARD_STORAGE__{name.upper()}": str(getattr(settings, name)) for name in names}

    def start(self) -> None:
        """Starts the server and waits until it answers; a missing binary skips or fails the test."""
        if self._process is not None:
            raise RuntimeError("MinIO is running already")
        binary = require_binary("minio")
        self.directory.mkdir(parents=True, exist_ok=True)
        log = self.directory / "minio.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [binary, "server", self.directory / "drive", "--address", self.endpoint, "--quiet"],
                env={
                    "PATH": os.environ.get("PATH", os.defpath),
                    "HOME": str(self.directory),
                    "MINIO_ROOT_USER": ACCESS_KEY,
                    "MINIO_ROOT_PASSWORD": SECRET_KEY,
                    "MINIO_BROWSER": "off",
                    "MINIO_UPDATE": "off",
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        keep(self._process.pid)
        deadline = time.monotonic() + READY_SECONDS
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"MinIO did not start:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.1)

    def stop(self) -> None:
        """Kills the server, as a power cut would."""
        if self._process is not None:
            release(self._process.pid)
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("GET", "/minio/health/cluster")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()


@asynccontextmanager
async def running_minio(directory: Path | None = None) -> AsyncIterator[MinioServer]:
    """A started server, killed at the end; in a temporary directory unless one is given."""
    with tempfile.TemporaryDirectory(prefix="modelyard-minio-") as temporary:
        server = MinioServer(directory or Path(temporary))
        try:
            await asyncio.to_thread(server.start)
            yield server
        finally:
            await asyncio.to_thread(server.stop)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
