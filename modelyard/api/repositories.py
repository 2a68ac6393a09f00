"""`/repositories`: what there is, and each repository as a whole."""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from core.errors import AccountNotFound, AlreadyExists, InvalidName, Unprocessable
from core.models import ObjectFormat, RepositoryType, Visibility
from core.names import Address
from core.repositories import RepositoryInfo
from hooks.catalogue import Wanted
from modelyard.api.call import Call
from modelyard.api.cursors import Page, Window
from modelyard.api.operation import REPOSITORY, Access, Operations
from modelyard.api.parameters import Description, Name, RefName, RepositoryName, given

operations = Operations("repositories", "Models and datasets.")

Facet = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=200,
        description="What the last commit on the default branch must say of itself, in any case.",
    ),
]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1, description="Of a model, as counted in its weights.")]


class RepositoryView(msgspec.Struct):
    """A repository.

    `path` is its place below the server's address, `url` its place in this API, `http_url` where Git clones
    it from. `id` never changes, whatever the repository is called.
    """

    id: str
    type: RepositoryType
    owner: str
    name: str
    path: str
    visibility: Visibility
    description: str
    default_branch: str
    object_format: ObjectFormat
    created_at: datetime
    updated_at: datetime
    url: str
    http_url: str


class NewRepository(msgspec.Struct, forbid_unknown_fields=True):
    """A repository to be. What is left out is as the server's settings say."""

    owner: Name
    name: RepositoryName
    type: RepositoryType = RepositoryType.MODEL
    visibility: Visibility | None = None
    description: Description = ""
    default_branch: RefName | None = None
    object_format: ObjectFormat = ObjectFormat.SHA1


class RepositoryChanges(msgspec.Struct, forbid_unknown_fields=True):
    """What is left out stays as it is."""

    visibility: Visibility | UnsetType = UNSET
    description: Description | UnsetType = UNSET
    default_branch: RefName | UnsetType = UNSET


class NewAddress(msgspec.Struct, forbid_unknown_fields=True):
    """Where a repository goes; what is left out stays as it is."""

    owner: Name | UnsetType = UNSET
    name: RepositoryName | UnsetType = UNSET


def view(call: Call, repository: RepositoryInfo) -> RepositoryView:
    """How a repository is shown to this caller."""
    return RepositoryView(
        id=repository.id,
        type=repository.type,
        owner=repository.owner,
        name=repository.name,
        path=repository.path,
        visibility=repository.visibility,
        description=repository.description,
        default_branch=repository.default_branch,
        object_format=repository.object_format,
        created_at=repository.created_at,
        updated_at=repository.updated_at,
        url=call.repository_url(repository),
        http_url=f"{call.base}/{repository.path}.git",
    )


@operations.add("GET", "/repositories", access=Access.READER, errors=(AccountNotFound, Unprocessable))
async def list_repositories(
    call: Call,
    window: Window[tuple[str, str, str]],
    owner: Name | None = None,
    type_: RepositoryType | None = None,
    search: Annotated[str, Meta(max_length=200, description="Looked for in names and descriptions.")]
    | None = None,
    task: Facet | None = None,
    library: Facet | None = None,
    license_: Facet | None = None,
    language: Facet | None = None,
    architecture: Facet | None = None,
    dtype: Facet | None = None,
    base_model: Facet | None = None,
    dataset: Facet | None = None,
    tag: Facet | None = None,
    min_parameters: Count | None = None,
    max_parameters: Count | None = None,
) -> Page[RepositoryView]:
    """List the repositories that you may see.

    Ordered by owner, type and name. What is asked of their content is asked of the last commit on the default
    branch; each of these is compared as a whole, in any case.
    """
    wanted = Wanted(
        task=task,
        library=library,
        license=license_,
        language=language,
        architecture=architecture,
        dtype=dtype,
        base_model=base_model,
        dataset=dataset,
        tag=tag,
        min_parameters=min_parameters,
        max_parameters=max_parameters,
    )
    found = await call.services.repositories.list_visible(
        call.actor,
        owner=owner,
        type=type_,
        search=search,
        narrow=wanted.conditions(),
        limit=window.fetch,
        after=window.after,
    )
    return window.page(found, lambda item: view(call, item), lambda item: item.cursor)


@operations.add(
    "POST",
    "/repositories",
    access=Access.WRITER,
    status=201,
    errors=(AccountNotFound, AlreadyExists, InvalidName, Unprocessable),
)
async def create_repository(call: Call, body: NewRepository) -> RepositoryView:
    """Create an empty repository.

    Under your own name, or under an organisation that you may write to.
    """
    repository = await call.services.repositories.create(
        call.actor,
        Address(body.type, body.owner.lower(), body.name),
        visibility=body.visibility,
        description=body.description,
        default_branch=body.default_branch,
        object_format=body.object_format,
    )
    call.headers["Location"] = call.repository_url(repository)
    return view(call, repository)


@operations.add("GET", REPOSITORY, access=Access.REPOSITORY_READ)
async def read_repository(call: Call, repository: RepositoryInfo) -> RepositoryView:
    """Read a repository."""
    return view(call, repository)


@operations.add("PATCH", REPOSITORY, access=Access.REPOSITORY_ADMIN, errors=(InvalidName, Unprocessable))
async def update_repository(
    call: Call, repository: RepositoryInfo, body: RepositoryChanges
) -> RepositoryView:
    """Change visibility, description or default branch."""
    changed = await call.services.repositories.update(
        call.actor,
        repository.address,
        visibility=given(body.visibility),
        description=given(body.description),
        default_branch=given(body.default_branch),
    )
    if changed.default_branch != repository.default_branch:
        call.services.understanding.heads.hint(changed.id)
    return view(call, changed)


@operations.add(
    "POST",
    REPOSITORY + "/move",
    access=Access.REPOSITORY_ADMIN,
    errors=(AccountNotFound, AlreadyExists, InvalidName, Unprocessable),
)
async def move_repository(call: Call, repository: RepositoryInfo, body: NewAddress) -> RepositoryView:
    """Rename a repository, or give it to another owner.

    The old address keeps working, for Git as well, until a new repository takes it.
    """
    to = Address(
        repository.type,
        (given(body.owner) or repository.owner).lower(),
        given(body.name) or repository.name,
    )
    moved = await call.services.repositories.move(call.actor, repository.address, to)
    call.headers["Location"] = call.repository_url(moved)
    return view(call, moved)


@operations.add("DELETE", REPOSITORY, access=Access.REPOSITORY_ADMIN)
async def delete_repository(call: Call, repository: RepositoryInfo) -> None:
    """Delete a repository for good."""
    await call.services.repositories.delete(call.actor, repository.address)
