"""`/tree` and `/raw`: the files of a revision."""

from typing import Annotated
from urllib.parse import quote

import msgspec
from aiohttp import web
from msgspec import Meta

from core.errors import EntryNotFound, RangeNotSatisfiable, RevisionNotFound
from core.repositories import RepositoryInfo
from gitserver.trees import Entry, EntryKind, TreePage
from modelyard.api.call import Call
from modelyard.api.content import BINARY, TEXT, looks_like_text, send
from modelyard.api.cursors import Page, Window
from modelyard.api.operation import REPOSITORY, Access, Operations
from modelyard.api.parameters import Revision, TailPath

operations = Operations("files", "Directories and contents of files, in any revision.")

Recursive = Annotated[bool, Meta(description="Also everything below, each directory before its content.")]


class EntryView(msgspec.Struct):
    """A file, directory, symbolic link or submodule.

    In `path`, what is not UTF-8 is replaced; `url` is exact. It leads to a directory's listing or a file's
    content, and is null for a submodule. `size` is in bytes, and null for directories and submodules.
    """

    path: str
    name: str
    kind: EntryKind
    mode: str
    oid: str
    size: int | None
    executable: bool
    url: str | None


@operations.add(
    "GET",
    REPOSITORY + "/tree/{revision}",
    access=Access.REPOSITORY_READ,
    errors=(RevisionNotFound, EntryNotFound),
)
async def list_root(
    call: Call,
    repository: RepositoryInfo,
    revision: Revision,
    window: Window[bytes],
    recursive: Recursive = False,
) -> Page[EntryView]:
    """List the top directory of a revision.

    In Git's order.
    """
    return await _listing(call, repository, revision, "", window, recursive)


@operations.add(
    "GET",
    REPOSITORY + "/tree/{revision}/{path}",
    access=Access.REPOSITORY_READ,
    errors=(RevisionNotFound, EntryNotFound),
)
async def list_directory(
    call: Call,
    repository: RepositoryInfo,
    revision: Revision,
    path: TailPath,
    window: Window[bytes],
    recursive: Recursive = False,
) -> Page[EntryView]:
    """List a directory.

    In Git's order.
    """
    return await _listing(call, repository, revision, path, window, recursive)


async def _listing(
    call: Call,
    repository: RepositoryInfo,
    revision: str,
    path: str,
    window: Window[bytes],
    recursive: bool,
) -> Page[EntryView]:
    found = await call.services.reader.tree(
        repository.id, revision, path, recursive=recursive, limit=window.limit, after=window.after or b""
    )
    return _page(call, repository, revision, found)


def _page(call: Call, repository: RepositoryInfo, revision: str, found: TreePage) -> Page[EntryView]:
    def view(entry: Entry) -> EntryView:
        return EntryView(
            path=entry.path,
            name=entry.name,
            kind=entry.kind,
            mode=entry.mode,
            oid=entry.oid,
            size=entry.size,
            executable=entry.executable,
            url=_url(call, repository, revision, entry),
        )

    return Page([view(entry) for entry in found.entries], found.after)


def _url(call: Call, repository: RepositoryInfo, revision: str, entry: Entry) -> str | None:
    if entry.kind is EntryKind.COMMIT:
        return None
    resource = "/tree/{revision}/" if entry.kind is EntryKind.TREE else "/raw/{revision}/"
    return call.repository_url(repository, resource, revision=revision) + quote(entry.raw_path)


@operations.add(
    "GET",
    REPOSITORY + "/raw/{revision}/{path}",
    access=Access.REPOSITORY_READ,
    errors=(RevisionNotFound, EntryNotFound, RangeNotSatisfiable),
    produces=(BINARY, TEXT),
    statuses={206: "The part that `Range` asks for."},
)
async def read_file(
    call: Call, repository: RepositoryInfo, revision: Revision, path: TailPath
) -> web.StreamResponse:
    """Read the content of a file.

    Whole, or one byte range of it. The `ETag` is the blob's id. Whatever the file is, the answer is plain
    text or bytes, which no browser runs.
    """
    reader = call.services.reader
    found = await reader.resolve(repository.id, revision)
    async with reader.blob(repository.id, found.oid, path) as blob:
        call.version(f'"{blob.oid}"', immutable=found.exact)
        return await send(
            call,
            size=blob.size,
            filename=blob.entry.raw_path.rpartition(b"/")[2],
            text=looks_like_text(blob.entry.name),
            content=blob.open,
        )
