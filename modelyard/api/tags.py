"""`/tags`: the tags of a repository."""

from typing import Annotated

import msgspec
from msgspec import Meta

from core.errors import AlreadyExists, InvalidName, PushRefused, RefConflict, RevisionNotFound, StaleParent
from core.repositories import RepositoryInfo
from gitserver.identities import MAX_MESSAGE_BYTES, InvalidIdentity, InvalidMessage
from gitserver.objects import Kind
from gitserver.reading import Tag
from modelyard.api.call import Call
from modelyard.api.commit_views import SignatureView
from modelyard.api.cursors import Page, Window
from modelyard.api.operation import REPOSITORY, Access, Operations
from modelyard.api.parameters import ExpectedOid, RefName, RefSegment, StartRevision

operations = Operations("tags", "Tags.")


class TagView(msgspec.Struct):
    """A tag: the `target` behind it is nearly always a commit.

    `tagger` and `message` are null for a lightweight tag; `oid` is then the target's.
    """

    name: str
    oid: str
    target: str
    target_kind: Kind
    tagger: SignatureView | None
    message: str | None


class NewTag(msgspec.Struct, forbid_unknown_fields=True):
    """A tag to be: annotated when it has a message, else lightweight."""

    name: RefName
    revision: StartRevision
    message: Annotated[str, Meta(min_length=1, max_length=MAX_MESSAGE_BYTES)] | None = None


def _view(tag: Tag) -> TagView:
    return msgspec.convert(tag, TagView, from_attributes=True)


@operations.add("GET", REPOSITORY + "/tags", access=Access.REPOSITORY_READ)
async def list_tags(call: Call, repository: RepositoryInfo, window: Window[str]) -> Page[TagView]:
    """List tags.

    Ordered by name, byte by byte.
    """
    found = await call.services.reader.tags(repository.id, limit=window.fetch, after=window.after or "")
    return window.page(found, _view, lambda tag: tag.name)


@operations.add("GET", REPOSITORY + "/tags/{tag}", access=Access.REPOSITORY_READ, errors=(RevisionNotFound,))
async def read_tag(call: Call, repository: RepositoryInfo, tag: RefSegment) -> TagView:
    """Read a tag."""
    return _view(await call.services.reader.tag(repository.id, tag))


@operations.add(
    "POST",
    REPOSITORY + "/tags",
    access=Access.REPOSITORY_WRITE,
    status=201,
    errors=(
        AlreadyExists,
        InvalidIdentity,
        InvalidMessage,
        InvalidName,
        PushRefused,
        RefConflict,
        RevisionNotFound,
    ),
)
async def create_tag(call: Call, repository: RepositoryInfo, body: NewTag) -> TagView:
    """Create a tag."""
    await call.services.branches.create_tag(
        repository, call.actor, body.name, body.revision, message=body.message
    )
    call.headers["Location"] = call.repository_url(repository, "/tags/{tag}", tag=body.name)
    return _view(await call.services.reader.tag(repository.id, body.name))


@operations.add(
    "DELETE",
    REPOSITORY + "/tags/{tag}",
    access=Access.REPOSITORY_WRITE,
    errors=(PushRefused, RefConflict, RevisionNotFound, StaleParent),
)
async def delete_tag(
    call: Call, repository: RepositoryInfo, tag: RefSegment, expected: ExpectedOid | None = None
) -> None:
    """Delete a tag.

    With `expected`, only while the tag names that object.
    """
    await call.services.branches.delete_tag(repository, call.actor, tag, expected=expected)
