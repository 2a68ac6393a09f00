"""What events say: one struct per kind of event, from which JSON Schemas are made.

Members may be added to a version; a member that goes or changes its meaning makes a new version.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

_Oid = Annotated[str, Meta(description="Full object id; zeros where there is none.")]
_Ref = Annotated[str, Meta(description="As in refs/heads/main.")]


class RefChange(Struct):
    """One ref that moved."""

    ref: _Ref
    old: _Oid
    new: _Oid


class Push(Struct):
    """Refs were changed: by a push, a commit over the API, or the making of a branch or tag."""

    push_id: int
    updates: list[RefChange]


class RefName(Struct):
    """A branch or a tag came or went. Told of the first hundred in a push."""

    action: Literal["created", "deleted"]
    name: Annotated[str, Meta(description="Without refs/heads/ or refs/tags/.")]
    ref: _Ref
    oid: Annotated[str, Meta(description="What it names, or named before it was deleted.")]


class RepositoryMade(Struct):
    """A repository was created."""

    id: str
    path: str


class RepositoryDeleted(Struct):
    """A repository was deleted; `repository` is what it was."""

    id: str
    path: str


class DefaultBranchChanged(Struct):
    """Another branch is the default."""

    path: str
    default_branch: str


class RepositoryRenamed(Struct):
    """A repository has a new name or owner; the old address redirects."""

    path: str
    previous: str


class VersionCreated(Struct):
    """A commit of a branch or tag was understood for the first time."""

    push_id: int
    ref: _Ref
    commit: str
    summary: Annotated[dict[str, Any], Meta(description="As in the metadata of a revision.")]
    findings: Annotated[Any, Meta(description="What is wrong with its files.")] = None


class MetadataUpdated(Struct):
    """The head of the default branch says other things than the one before."""

    commit: str
    previous: str | None
    changes: Annotated[dict[str, Any], Meta(description="By name: `before` and `after`, as in `summary`.")]


class Requested(Struct):
    """A rule asks for a run; whoever receives this is to start it."""

    request_id: Annotated[str, Meta(description="Hand it back with what the run pushes.")]
    rule: str
    source: Annotated[Literal["file", "rest"], Meta(description=".modelyard.toml, or a rule over REST.")]
    ref: _Ref
    commit: str
    parameters: dict[str, Any]
    metadata: Annotated[dict[str, Any], Meta(description="The summary of the commit.")]
    chain: Annotated[list[str], Meta(description="Requests that led here, by id, oldest first.")]
    push_id: int


class Run(Struct):
    """A run changed its state."""

    run_id: str
    kind: Literal["training", "evaluation", "deployment"]
    request_id: str | None = None
    ref: str | None = None
    commit: str | None = None
    message: str = ""


class WebhookPaused(Struct):
    """The server stopped to deliver to a subscription. Told to the others of its scope, owner and server."""

    webhook_id: int
    scope: Literal["repository", "owner", "server"]
    target: Annotated[str, Meta(description="A repository's path, an account's name, or server.")]
    name: str
    receiver: Annotated[str, Meta(description="Host and port.")]
    reason: str


class Ping(Struct):
    """Somebody wants to know whether deliveries arrive."""

    webhook_id: int
    events: Annotated[list[str], Meta(description="What the subscription is for.")]
