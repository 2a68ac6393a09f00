"""Sending bytes that live in a repository: ranges, versions, and headers under which no browser runs them."""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import quote

from aiohttp import web

from core.errors import RangeNotSatisfiable
from modelyard.api.call import Call

TEXT = "text/plain"
BINARY = "application/octet-stream"

# Told by the name alone, so that every range of a file has the same type.
_TEXT_SUFFIXES = frozenset(
    """
    .c .cfg .conf .cpp .css .csv .go .h .hpp .html .ini .java .jinja .jinja2 .js .json .jsonl .lua .md .mjs
    .ndjson .patch .pl .properties .proto .py .pyi .r .rb .rs .rst .sh .sql .svg .tex .toml .ts .tsv .txt .xml
    .yaml .yml
    """.split()
)
_TEXT_NAMES = frozenset(
    """
    .editorconfig .gitattributes .gitignore .gitmodules authors changelog contributing dockerfile license
    makefile notice readme
    """.split()
)

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes `start` to `stop`, without the last."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        return self.stop - self.start


def parse_range(header: str | None, size: int) -> Span | None:
    """The one range that `header` asks for; None for everything.

    What is no single byte range is ignored, as RFC 9110 allows.

    Raises:
        RangeNotSatisfiable: it starts behind the end.
    """
    match = _RANGE.fullmatch((header or "").strip())
    if match is None or match.group(1) == match.group(2) == "":
        return None
    first, last = match.groups()
    if first and last and int(first) > int(last):
        return None
    if first:
        span = Span(int(first), min(int(last) + 1, size) if last else size)
    else:
        span = Span(max(0, size - int(last)), size)
    if span.length <= 0:
        raise RangeNotSatisfiable(f"there are only {size} bytes", size=size)
    return span


def looks_like_text(filename: str) -> bool:
    """Whether a file is likely to be text for people."""
    name = filename.lower()
    return name in _TEXT_NAMES or PurePosixPath(name).suffix in _TEXT_SUFFIXES


def disposition(kind: str, filename: bytes) -> str:
    """A `Content-Disposition`, with an ASCII name for old clients and the real one for all others."""
    plain = re.sub(rb"[^ !#-\[\]-~]|%", b"_", filename).decode("ascii")
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"


def safe_headers(filename: bytes, *, inline: bool) -> dict[str, str]:
    """Headers that keep a browser from running, framing or sniffing what somebody pushed."""
    return {
        "Content-Disposition": disposition("inline" if inline else "attachment", filename),
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "X-Content-Type-Options": "nosniff",
    }


async def send(
    call: Call,
    *,
    size: int,
    filename: bytes,
    text: bool,
    content: Callable[[int, int], AbstractAsyncContextManager[AsyncIterator[bytes]]],
) -> web.StreamResponse:
    """Answers with `content(start, length)` of something that has `size` bytes; obeys `Range` and `If-Range`.

    `call.version` was called before.
    """
    request = call.request
    condition = request.headers.get("If-Range")
    stale = condition is not None and condition.strip() != call.headers.get("ETag")
    span = None if stale else parse_range(request.headers.get("Range"), size)
    shown = span or Span(0, size)
    response = web.StreamResponse(status=206 if span else 200, headers=call.headers)
    response.headers.update(safe_headers(filename, inline=text))
    response.headers["Accept-Ranges"] = "bytes"
    response.content_type = TEXT if text else BINARY
    if text:
        response.charset = "utf-8"
    response.content_length = shown.length
    if span:
        response.headers["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{size}"
    await response.prepare(request)
    if request.method != "HEAD" and shown.length:
        async with content(shown.start, shown.length) as chunks:
            async for chunk in chunks:
                await response.write(chunk)
    await response.write_eof()
    return response
