"""Raw requests that throw their answer away: the server alone is measured, not a client's index-pack."""

import socket
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

_BUFFER = 1 << 20


@dataclass(frozen=True, slots=True)
class Answer:
    """`first` and `seconds` count from before the connection was made."""

    status: int
    bytes: int
    first: float
    seconds: float


def pkt(line: str) -> bytes:
    """One pkt-line of text."""
    return b"%04x%s" % (len(line) + 4, line.encode())


def fetch_body(wants: Sequence[str], haves: Sequence[str] = ()) -> bytes:
    """A version 2 fetch as git 2.39 sends it."""
    lines = ["command=fetch", "agent=git/2.39.5", "object-format=sha1"]
    arguments = ["thin-pack", "no-progress", "ofs-delta", *(f"want {oid}" for oid in wants)]
    arguments += [f"have {oid}" for oid in haves] + ["done"]
    return b"".join([*map(pkt, lines), b"0001", *(pkt(f"{line}\n") for line in arguments), b"0000"])


def ls_refs_body(*prefixes: str) -> bytes:
    """A version 2 ls-refs as git clone sends it."""
    lines = ["command=ls-refs\n", "agent=git/2.39.5", "object-format=sha1"]
    arguments = ["peel\n", "symrefs\n", *(f"ref-prefix {prefix}\n" for prefix in prefixes)]
    return b"".join([*map(pkt, lines), b"0001", *map(pkt, arguments), b"0000"])


GIT_HEADERS = {
    "Content-Type": "application/x-git-upload-pack-request",
    "Accept": "application/x-git-upload-pack-result",
    "Git-Protocol": "version=2",
}


def request(
    url: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    file: Path | None = None,
) -> Answer:
    """One request on a connection of its own; the body is bytes or a file, sent with sendfile."""
    parts = urlsplit(url)
    size = file.stat().st_size if file else len(body)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    lines = [f"{method} {target} HTTP/1.1", f"Host: {parts.netloc}", "Connection: close"]
    if size or method in {"POST", "PUT"}:
        lines.append(f"Content-Length: {size}")
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    start = time.perf_counter()
    with socket.create_connection((parts.hostname, parts.port), timeout=600) as link:
        link.sendall("\r\n".join([*lines, "", ""]).encode() + body)
        if file:
            with file.open("rb") as source:
                link.sendfile(source)
        return _read(link, start)


def _read(link: socket.socket, start: float) -> Answer:
    buffer = bytearray(_BUFFER)
    head = bytearray()
    while b"\r\n\r\n" not in head:
        count = link.recv_into(buffer)
        if not count:
            raise ConnectionError("the connection ended in the head of the answer")
        head += buffer[:count]
    first = time.perf_counter() - start
    status = int(head.split(b" ", 2)[1])
    seen = len(head) - head.index(b"\r\n\r\n") - 4
    if status >= 400:
        raise RuntimeError(f"answered {status}: {bytes(head[-300:])!r}")
    while count := link.recv_into(buffer):
        seen += count
    return Answer(status, seen, first, time.perf_counter() - start)


def fetch(url: str, body: bytes, *, token: str = "") -> Answer:
    """One POST git-upload-pack, by nobody or with a token."""
    proof = {"Authorization": f"Bearer {token}"} if token else {}
    return request(f"{url}/git-upload-pack", method="POST", headers={**GIT_HEADERS, **proof}, body=body)


def at_once(count: int, url: str, body: bytes) -> float:
    """Wall seconds of `count` equal fetches that start together."""
    start = time.perf_counter()
    with ThreadPoolExecutor(count) as pool:
        for answer in pool.map(lambda _: fetch(url, body), range(count)):
            if answer.bytes < 1000:
                raise RuntimeError("the answer is too short to be a pack")
    return time.perf_counter() - start
