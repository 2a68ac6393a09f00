"""`/revisions/{revision}/metadata`: what a commit of a model or dataset is."""

from collections.abc import Sequence
from contextlib import aclosing
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from core.errors import EntryNotFound, RevisionNotFound
from core.models import RepositoryType
from core.repositories import RepositoryInfo
from gitserver.queries import TooExpensive
from hooks.errors import ContentUnavailable
from hooks.formats.parsed import Finding
from hooks.summary import Summary
from hooks.versions import Version, VersionFile
from modelyard.api.call import Call
from modelyard.api.operation import REPOSITORY, Access, Operations
from modelyard.api.parameters import Revision

operations = Operations("metadata", "What files of models and datasets say, and what is wrong with them.")

# Decoded, which each answer is for a moment, it takes twelve times as much memory.
_ANSWER_BYTES = 4 * 1024**2

AtPath = Annotated[str, Meta(min_length=1, max_length=4096, description="Only the file at this path.")]
Tensors = Annotated[
    bool, Meta(description="With the list of tensors in each file, and the map from tensors to shards.")
]
Skip = Annotated[int, Meta(ge=0, le=1_000_000, description="How many files to leave out at the start.")]
Limit = Annotated[int, Meta(ge=0, le=200, description="How many files at most.")]


class MetadataFileView(msgspec.Struct):
    """A file that means something for models or datasets.

    `digest` is `sha256:` and the object's name for a file in LFS, else `git:` and the blob's. `size` is that
    of the content, in bytes. `parser` is null, and so is `metadata`, where nothing could be read.
    """

    path: str
    digest: str
    size: int
    parser: str | None
    metadata: dict[str, Any] | None


class MetadataView(msgspec.Struct):
    """A commit, understood.

    `files` starts after those that were skipped, the most telling first, and may have fewer than were asked
    for where these are long; `files_total` is how many there are. `findings` are those of the files, and
    those of the summary.
    """

    commit: str
    type: RepositoryType
    summary: Summary
    files: list[MetadataFileView]
    files_total: int
    findings: list[Finding]


@operations.add(
    "GET",
    REPOSITORY + "/revisions/{revision}/metadata",
    access=Access.REPOSITORY_READ,
    errors=(RevisionNotFound, EntryNotFound, TooExpensive, ContentUnavailable),
)
async def read_metadata(
    call: Call,
    repository: RepositoryInfo,
    revision: Revision,
    path: AtPath | None = None,
    tensors: Tensors = False,
    skip: Skip = 0,
    limit: Limit = 50,
) -> MetadataView:
    """Read what a revision is.

    The summary of the whole, what is wrong with it, and what each file says. Headers are read, never weights.
    To go on in a long list of files, ask for the `commit` of the answer, and skip what you have.
    """
    commit = (await call.services.reader.commit(repository.id, revision)).oid
    version = await call.services.understanding.versions.look(repository.id, commit)
    chosen = version.files
    if path is not None:
        chosen = tuple(file for file in version.files if file.path == path)
        if not chosen:
            raise EntryNotFound("no file at this path means anything here")
    return MetadataView(
        commit=commit,
        type=version.type,
        summary=version.summary,
        files=await _files(call, version, chosen[skip : skip + limit], tensors=tensors),
        files_total=len(chosen),
        findings=[one for one in version.findings if path is None or one.path == path],
    )


async def _files(
    call: Call, version: Version, chosen: Sequence[VersionFile], *, tensors: bool
) -> list[MetadataFileView]:
    found: dict[str, dict[str, Any] | None] = dict.fromkeys(file.path for file in chosen)
    size = 0
    answers = call.services.understanding.versions.parsed(version, chosen, lists=tensors)
    async with aclosing(answers):
        async for file, parsed in answers:
            if parsed.metadata is None:
                continue
            size += len(msgspec.json.encode(parsed.metadata))
            if size > _ANSWER_BYTES and any(found.values()):
                chosen = chosen[: chosen.index(file)]
                break
            found[file.path] = dict(parsed.metadata)
    return [MetadataFileView(one.path, one.digest, one.size, one.parser, found[one.path]) for one in chosen]
