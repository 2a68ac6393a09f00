"""nginx in front of MinIO, as `deploy/` describes it."""

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.binaries import require_binary
from tests.support.children import keep, release
from tests.support.ports import free_port

SNIPPET = Path(__file__).parents[2] / "deploy" / "minio-proxy.nginx.conf"
READY_SECONDS = 60.0

_AROUND = """\
daemon off;
master_process off;
pid {folder}/nginx.pid;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/minio.conf;
}}
"""


@contextmanager
def nginx_before_minio(folder: Path, endpoint: str, bucket: str, *, port: int | None = None) -> Iterator[str]:
    """HOST:PORT of the proxy, without TLS. A missing binary skips or fails the test."""
    binary = require_binary("nginx")
    folder.mkdir()
    port = port or free_port()
    here = f"127.0.0.1:{port}"
    (folder / "minio.conf").write_text(_snippet(here, endpoint, bucket))
    (folder / "nginx.conf").write_text(_AROUND.format(folder=folder))
    log = folder / "nginx.log"
    process = subprocess.Popen(
        [binary, "-p", folder, "-c", "nginx.conf", "-e", log],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    keep(process.pid)
    try:
        deadline = time.monotonic() + READY_SECONDS
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"nginx did not start:\n{log.read_text()}")
            time.sleep(0.02)
        yield here
    finally:
        release(process.pid)
        process.kill()
        process.wait()


def _snippet(here: str, endpoint: str, bucket: str) -> str:
    """What `deploy/` has, with the addresses of the test and without a certificate."""
    text = SNIPPET.read_text()
    changes = {"443 ssl": here, "/modelyard/": f"/{bucket}/", "http://127.0.0.1:9000": f"http://{endpoint}"}
    for before, after in changes.items():
        assert text.count(before) == 1
        text = text.replace(before, after)
    return "\n".join(line for line in text.splitlines() if "ssl_certificate" not in line)


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
