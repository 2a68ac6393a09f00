"""`/archive`: a revision as one file."""

from aiohttp import web

from core.errors import RevisionNotFound
from core.repositories import RepositoryInfo
from gitserver.archives import ArchiveFormat
from modelyard.api.call import Call
from modelyard.api.content import safe_headers
from modelyard.api.operation import REPOSITORY, Access, Operations
from modelyard.api.parameters import Revision

operations = Operations("archives", "A revision as one file to download.")

_MEDIA = {ArchiveFormat.ZIP: "application/zip", ArchiveFormat.TAR_GZ: "application/gzip"}


@operations.add(
    "GET",
    REPOSITORY + "/archive/{revision}.zip",
    access=Access.REPOSITORY_READ,
    errors=(RevisionNotFound,),
    produces=(_MEDIA[ArchiveFormat.ZIP],),
)
async def read_zip(call: Call, repository: RepositoryInfo, revision: Revision) -> web.StreamResponse:
    """Download a revision as a zip file."""
    return await _send(call, repository, revision, ArchiveFormat.ZIP)


@operations.add(
    "GET",
    REPOSITORY + "/archive/{revision}.tar.gz",
    access=Access.REPOSITORY_READ,
    errors=(RevisionNotFound,),
    produces=(_MEDIA[ArchiveFormat.TAR_GZ],),
)
async def read_tar_gz(call: Call, repository: RepositoryInfo, revision: Revision) -> web.StreamResponse:
    """Download a revision as a compressed tar file."""
    return await _send(call, repository, revision, ArchiveFormat.TAR_GZ)


async def _send(
    call: Call, repository: RepositoryInfo, revision: str, archive_format: ArchiveFormat
) -> web.StreamResponse:
    reader = call.services.reader
    async with reader.archive(repository.id, revision, archive_format, name=repository.name) as archive:
        # Weak, because another version of git may pack the same files into other bytes.
        call.version(f'W/"{archive.oid}.{archive_format}"')
        response = web.StreamResponse(headers=call.headers)
        response.headers.update(safe_headers(archive.file_name.encode(), inline=False))
        response.content_type = _MEDIA[archive_format]
        await response.prepare(call.request)
        if call.request.method != "HEAD":
            async for chunk in archive.chunks:
                await response.write(chunk)
        await response.write_eof()
        return response
