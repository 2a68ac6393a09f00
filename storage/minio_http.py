"""The HTTP connections of the MinIO store, with limits that make a dead server fail soon."""

import ssl
from typing import Any

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager, Retry, Timeout
from urllib3.connection import HTTPConnection, HTTPSConnection

CONNECT_SECONDS = 5.0
# Silence of the server: before its answer, or between two pieces of a body.
READ_SECONDS = 20.0
# The whole body of one request, which is at most one part, and longer for large ones.
SEND_SECONDS = 120.0
SLOWEST_BYTES_PER_SECOND = 1024**2


def connections(size: int) -> PoolManager:
    """Keeps up to `size` idle connections; more may be open at a time."""
    pool = PoolManager(
        maxsize=size,
        timeout=Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS),
        retries=Retry(
            total=2,
            connect=1,
            read=1,
            redirect=0,
            backoff_factor=0.2,
            status_forcelist=(500, 502, 503, 504),
            # The last answer says more ("SlowDown") than "too many 503".
            raise_on_status=False,
        ),
        # The certificates of the system or of SSL_CERT_FILE: a private MinIO has a private authority.
        ssl_context=ssl.create_default_context(),
    )
    pool.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
    return pool


class _PatientSend:
    """Gives a request body its own time limit.

    `socket.sendall` takes the timeout of the socket for the whole body, and that is still the one for
    connecting: a 16 MiB part on a slow line would never arrive.
    """

    sock: Any

    def send(self, data: Any) -> None:
        if self.sock is not None:
            self.sock.settimeout(SEND_SECONDS + len(data) / SLOWEST_BYTES_PER_SECOND)
        super().send(data)  # type: ignore[misc]


class _Connection(_PatientSend, HTTPConnection):
    pass


class _SecureConnection(_PatientSend, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection
