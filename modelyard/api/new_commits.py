"""`POST …/commits`: changes of files, made here as one commit."""

import binascii
from base64 import b64decode
from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from core.errors import (
    AlreadyExists,
    EntryNotFound,
    InvalidName,
    PayloadTooLarge,
    PushRefused,
    RefConflict,
    RevisionNotFound,
    StaleParent,
)
from core.repositories import RepositoryInfo
from gitserver.commits import MAX_OPERATIONS, Delete, Move, NothingToCommit, Put
from gitserver.commits import Operation as Edit
from gitserver.edits import PathConflict
from gitserver.identities import MAX_MESSAGE_BYTES, Identity, InvalidIdentity, InvalidMessage
from gitserver.paths import InvalidPath
from modelyard.api.call import Call
from modelyard.api.errors import InvalidRequest
from modelyard.api.operation import REPOSITORY, Access, Operations
from modelyard.api.parameters import RefName

operations = Operations("changes", "Changes of files, made here as one commit.")

FilePath = Annotated[
    str, Meta(min_length=1, max_length=4096, description="From the root, without a slash there.")
]
Oid = Annotated[str, Meta(pattern="^(?:[0-9a-f]{40}|[0-9a-f]{64})$", description="A full commit id.")]
Message = Annotated[str, Meta(min_length=1, max_length=MAX_MESSAGE_BYTES)]


class PutFile(msgspec.Struct, tag_field="action", tag="put", forbid_unknown_fields=True):
    """Creates a file or replaces its content. Unless `executable` says, a file that exists keeps its mode."""

    path: FilePath
    content: str
    encoding: Literal["utf-8", "base64"] = "utf-8"
    executable: bool | None = None


class DeletePath(msgspec.Struct, tag_field="action", tag="delete", forbid_unknown_fields=True):
    """Deletes a file, or with `recursive` a directory."""

    path: FilePath
    recursive: bool = False


class MovePath(msgspec.Struct, tag_field="action", tag="move", forbid_unknown_fields=True):
    """Renames a file or directory; nothing may stand at `to`."""

    path: FilePath
    to: FilePath


class Author(msgspec.Struct, forbid_unknown_fields=True):
    """Who wrote the change, if not who sends it. Without `when`, now."""

    name: Annotated[str, Meta(min_length=1, max_length=250)]
    email: Annotated[str, Meta(min_length=1, max_length=250)]
    when: Annotated[datetime, Meta(tz=True)] | None = None


class NewCommit(msgspec.Struct, forbid_unknown_fields=True):
    """A commit to be: the operations are applied in their order, all or none.

    With `parent` the branch must be exactly there. With `start`, a revision, the branch is made there; in a
    repository without branches the first commit makes it.
    """

    branch: RefName
    message: Message
    operations: Annotated[
        list[PutFile | DeletePath | MovePath], Meta(min_length=1, max_length=MAX_OPERATIONS)
    ]
    parent: Oid | None = None
    start: Annotated[str, Meta(min_length=1, max_length=600)] | None = None
    author: Author | None = None


class CommittedView(msgspec.Struct):
    """A commit that is on its branch; `parent` is null for the first one of a history.

    `messages` is what `git push` would show behind `remote:`.
    """

    oid: str
    tree: str
    parent: str | None
    branch: str
    messages: list[str]


@operations.add(
    "POST",
    REPOSITORY + "/commits",
    access=Access.REPOSITORY_WRITE,
    status=201,
    errors=(
        AlreadyExists,
        EntryNotFound,
        InvalidIdentity,
        InvalidMessage,
        InvalidName,
        InvalidPath,
        NothingToCommit,
        PathConflict,
        PayloadTooLarge,
        PushRefused,
        RefConflict,
        RevisionNotFound,
        StaleParent,
    ),
)
async def create_commit(call: Call, repository: RepositoryInfo, body: NewCommit) -> CommittedView:
    """Change files in one commit.

    The same rules and checks apply as for a push. For larger files push with Git.
    """
    author = Identity(body.author.name, body.author.email, body.author.when) if body.author else None
    made = await call.services.committer.commit(
        repository,
        call.actor,
        body.branch,
        [_edit(number, wanted) for number, wanted in enumerate(body.operations)],
        body.message,
        parent=body.parent,
        start=body.start,
        author=author,
    )
    call.headers["Location"] = call.repository_url(repository, "/commits/{oid}", oid=made.oid)
    return CommittedView(made.oid, made.tree, made.parent, made.branch, list(made.messages))


def _edit(number: int, wanted: PutFile | DeletePath | MovePath) -> Edit:
    match wanted:
        case PutFile(path=path, executable=executable):
            return Put(path, _content(number, wanted), executable=executable)
        case DeletePath(path=path, recursive=recursive):
            return Delete(path, recursive)
        case MovePath(path=path, to=to):
            return Move(path, to)


def _content(number: int, wanted: PutFile) -> bytes:
    if wanted.encoding == "utf-8":
        return wanted.content.encode()
    try:
        return b64decode(wanted.content, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest("body", f"$.operations[{number}].content", "not base64") from error
