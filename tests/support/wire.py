"""Git's wire format by hand, for what no honest client sends: packs, pkt-lines, and both transports."""

import asyncio
import base64
import hashlib
import re
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

ZERO = "0" * 40
CAPABILITIES = "report-status side-band-64k atomic push-options object-format=sha1 agent=raw"

_TYPES = {"commit": 1, "tree": 2, "blob": 3, "tag": 4}


def pkt(line: bytes | str) -> bytes:
    data = line.encode() if isinstance(line, str) else line
    return b"%04x%s" % (len(data) + 4, data)


def oid_of(kind: str, body: bytes) -> str:
    return hashlib.sha1(f"{kind} {len(body)}\0".encode() + body).hexdigest()


def tree_body(entries: Sequence[tuple[str, str, str]]) -> bytes:
    """A tree of `(mode, name, oid)`."""
    return b"".join(f"{mode} {name}\0".encode() + bytes.fromhex(oid) for mode, name, oid in entries)


def commit_body(tree: str, *, parents: Sequence[str] = (), message: str = "m") -> bytes:
    who = "Ada <ada@example.org> 1700000000 +0000"
    lines = [f"tree {tree}", *(f"parent {one}" for one in parents), f"author {who}", f"committer {who}"]
    return ("\n".join(lines) + f"\n\n{message}\n").encode()


def entry_head(kind: int, size: int) -> bytes:
    """The head of a pack entry: three bits of type, then the size in sevens (gitformat-pack(5))."""
    byte = (kind << 4) | (size & 15)
    size >>= 4
    out = bytearray()
    while size:
        out.append(byte | 0x80)
        byte, size = size & 0x7F, size >> 7
    return bytes(out) + bytes([byte])


@dataclass
class PackBuilder:
    """Writes a pack entry by entry."""

    entries: list[bytes] = field(default_factory=list)

    def add(self, kind: str, body: bytes) -> str:
        """Adds a whole object and returns its oid."""
        self.entries.append(entry_head(_TYPES[kind], len(body)) + zlib.compress(body))
        return oid_of(kind, body)

    def add_ref_delta(self, base: str, delta: bytes) -> None:
        self.entries.append(entry_head(7, len(delta)) + bytes.fromhex(base) + zlib.compress(delta, 9))

    def build(self, *, count: int | None = None) -> bytes:
        head = b"PACK" + struct.pack(">II", 2, len(self.entries) if count is None else count)
        body = head + b"".join(self.entries)
        return body + hashlib.sha1(body).digest()


def varint(number: int) -> bytes:
    out = bytearray()
    while True:
        byte, number = number & 0x7F, number >> 7
        out.append(byte | (0x80 if number else 0))
        if not number:
            return bytes(out)


def copy_delta(base_size: int, *, copies: int) -> bytes:
    """A delta that repeats its base: each copy instruction is a few bytes, its output the base's size."""
    step = base_size.to_bytes(3, "little")
    instruction = bytes([0x80 | 0x70]) + step
    return varint(base_size) + varint(base_size * copies) + instruction * copies


def simple_commit(
    builder: PackBuilder, *, content: bytes = b"x\n", parents: Sequence[str] = (), message: str = "m"
) -> str:
    """Adds a blob, a tree and a commit; returns the commit."""
    blob = builder.add("blob", content)
    tree = builder.add("tree", tree_body([("100644", "a", blob)]))
    return builder.add("commit", commit_body(tree, parents=parents, message=message))


def push_request(
    commands: Sequence[tuple[str, str, str]],
    pack: bytes = b"",
    *,
    capabilities: str = CAPABILITIES,
    options: Sequence[str] = (),
) -> bytes:
    """What a client sends to receive-pack: commands, options, pack."""
    out = b""
    for number, (old, new, name) in enumerate(commands):
        tail = f"\0 {capabilities}" if number == 0 else ""
        out += pkt(f"{old} {new} {name}{tail}\n")
    out += b"0000"
    if "push-options" in capabilities:
        out += b"".join(pkt(option) for option in options) + b"0000"
    return out + pack


@dataclass(frozen=True)
class Report:
    """A report-status, taken out of the sideband."""

    unpack: str
    refs: dict[str, str]
    raw: bytes

    @property
    def ok(self) -> bool:
        return self.unpack == "ok" and bool(self.refs) and all(one == "ok" for one in self.refs.values())


def packets(data: bytes) -> list[bytes]:
    """Payloads up to the end; markers as `b""`."""
    out, at = [], 0
    while at + 4 <= len(data):
        length = int(data[at : at + 4], 16)
        out.append(b"" if length < 4 else data[at + 4 : at + length])
        at += max(length, 4)
    return out


def read_report(data: bytes) -> Report:
    """Reads the answer to `push_request` with side-band-64k."""
    inner = b"".join(one[1:] for one in packets(data) if one[:1] == b"\1")
    unpack, refs = "", {}
    for line in packets(inner):
        text = line.decode(errors="replace").rstrip("\n")
        if text.startswith("unpack "):
            unpack = text.removeprefix("unpack ")
        elif text.startswith("ok "):
            refs[text.removeprefix("ok ")] = "ok"
        elif text.startswith("ng "):
            name, _, reason = text.removeprefix("ng ").partition(" ")
            refs[name] = reason
    return Report(unpack, refs, data)


@dataclass(frozen=True)
class Answer:
    """What a transport gave back. `status` is the HTTP status, or the exit status over SSH."""

    status: int
    body: bytes
    message: str = ""


async def http_post(
    url: str,
    service: str,
    body: bytes,
    *,
    user: str,
    password: str,
    length: int | None = None,
    headers: Sequence[tuple[str, str]] = (),
    linger: bool = True,
) -> Answer:
    """POSTs over a bare socket; `length` lies about the body, `linger` waits for the answer."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    login = base64.b64encode(f"{user}:{password}".encode()).decode()
    head = [
        f"POST {parts.path}/{service} HTTP/1.1",
        f"Host: {parts.netloc}",
        f"Authorization: Basic {login}",
        f"Content-Type: application/x-{service}-request",
        f"Content-Length: {len(body) if length is None else length}",
        "Connection: close",
        *(f"{name}: {value}" for name, value in headers),
    ]
    try:
        writer.write("\r\n".join(head).encode() + b"\r\n\r\n" + body)
        await writer.drain()
        if not linger:
            return Answer(0, b"")
        if length is not None and length > len(body):
            writer.write_eof()
        return _parse_http(await asyncio.wait_for(reader.read(-1), 60))
    except (ConnectionResetError, BrokenPipeError) as error:
        return Answer(0, b"", str(error))
    finally:
        writer.close()


def _parse_http(data: bytes) -> Answer:
    head, _, body = data.partition(b"\r\n\r\n")
    match = re.match(rb"HTTP/1\.1 (\d+)", head)
    if match is None:
        return Answer(0, data)
    if b"transfer-encoding: chunked" in head.lower():
        body = _dechunk(body)
    return Answer(int(match[1]), body, body.decode(errors="replace"))


def _dechunk(data: bytes) -> bytes:
    out = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        if not size or int(size, 16) == 0:
            break
        out, data = out + data[: int(size, 16)], data[int(size, 16) + 2 :]
    return out


async def ssh_exchange(
    command: Sequence[str], body: bytes, *, half_close: bool = True, seconds: float = 60
) -> Answer:
    """Runs an `ssh` command line, waits for the advertisement, sends `body`, reads the rest."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(seconds):
            while True:
                try:
                    length = int(await process.stdout.readexactly(4), 16)
                except asyncio.IncompleteReadError:
                    break
                if length == 0:
                    break
                await process.stdout.readexactly(length - 4)
            try:
                process.stdin.write(body)
                await process.stdin.drain()
                if half_close:
                    process.stdin.close()
            except (BrokenPipeError, ConnectionResetError):
                pass  # the server may have closed already; its answer is what counts
            out, err = await asyncio.gather(process.stdout.read(-1), process.stderr.read(-1))
            status = await process.wait()
            return Answer(status, out, err.decode(errors="replace"))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
