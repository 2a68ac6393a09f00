"""`/collaborators` and `/deploy-keys`: who else may use one repository."""

from datetime import datetime

import msgspec

from core.collaboration import CollaboratorInfo
from core.errors import AccountNotFound, AlreadyExists, Unprocessable
from core.keyring import KeyInfo
from core.models import Role
from core.repositories import RepositoryInfo
from core.ssh_keys import InvalidKey
from modelyard.api.call import Call
from modelyard.api.cursors import Page, Window, one
from modelyard.api.keys import KeyTitle, PublicKeyText
from modelyard.api.operation import REPOSITORY, Access, Operations
from modelyard.api.parameters import Id, Name

operations = Operations("sharing", "Collaborators and deploy keys of a repository.")


class CollaboratorView(msgspec.Struct):
    """A user with a role in one repository."""

    user: str
    role: Role
    since: datetime


class CollaboratorRole(msgspec.Struct, forbid_unknown_fields=True):
    role: Role


class DeployKeyView(msgspec.Struct):
    """A public key that is good for one repository."""

    id: int
    title: str
    fingerprint: str
    public_key: str
    read_only: bool
    last_used_at: datetime | None
    created_at: datetime


class NewDeployKey(msgspec.Struct, forbid_unknown_fields=True):
    """A public key; unless `read_only` is false, whoever holds it cannot push."""

    key: PublicKeyText
    title: KeyTitle = ""
    read_only: bool = True


def _collaborator(info: CollaboratorInfo) -> CollaboratorView:
    return CollaboratorView(info.user, info.role, info.since)


def _key(key: KeyInfo) -> DeployKeyView:
    return msgspec.convert(key, DeployKeyView, from_attributes=True)


@operations.add("GET", REPOSITORY + "/collaborators", access=Access.REPOSITORY_ADMIN)
async def list_collaborators(
    call: Call, repository: RepositoryInfo, window: Window[str]
) -> Page[CollaboratorView]:
    """List collaborators.

    Ordered by name. The owner, and members of an owning organisation, are not among them.
    """
    found = await call.services.collaboration.collaborators(call.actor, repository.address)
    return window.page_of_all(found, _collaborator, lambda info: info.user)


@operations.add(
    "PUT",
    REPOSITORY + "/collaborators/{user}",
    access=Access.REPOSITORY_ADMIN,
    errors=(AccountNotFound, Unprocessable),
)
async def set_collaborator(
    call: Call, repository: RepositoryInfo, user: Name, body: CollaboratorRole
) -> CollaboratorView:
    """Add a collaborator, or change the role of one."""
    return _collaborator(
        await call.services.collaboration.set_collaborator(call.actor, repository.address, user, body.role)
    )


@operations.add(
    "DELETE",
    REPOSITORY + "/collaborators/{user}",
    access=Access.REPOSITORY_ADMIN,
    errors=(AccountNotFound,),
)
async def remove_collaborator(call: Call, repository: RepositoryInfo, user: Name) -> None:
    """Remove a collaborator."""
    await call.services.collaboration.remove_collaborator(call.actor, repository.address, user)


@operations.add("GET", REPOSITORY + "/deploy-keys", access=Access.REPOSITORY_ADMIN)
async def list_deploy_keys(
    call: Call, repository: RepositoryInfo, window: Window[int]
) -> Page[DeployKeyView]:
    """List deploy keys.

    Oldest first.
    """
    found = await call.services.collaboration.deploy_keys(call.actor, repository.address)
    return window.page_of_all(found, _key, lambda key: key.id)


@operations.add(
    "POST",
    REPOSITORY + "/deploy-keys",
    access=Access.REPOSITORY_ADMIN,
    status=201,
    errors=(AlreadyExists, InvalidKey, Unprocessable),
)
async def add_deploy_key(call: Call, repository: RepositoryInfo, body: NewDeployKey) -> DeployKeyView:
    """Add a deploy key."""
    key = await call.services.collaboration.add_deploy_key(
        call.actor, repository.address, body.key, body.title, read_only=body.read_only
    )
    call.headers["Location"] = call.repository_url(repository, "/deploy-keys/{key}", key=key.id)
    return _key(key)


@operations.add("GET", REPOSITORY + "/deploy-keys/{key}", access=Access.REPOSITORY_ADMIN)
async def read_deploy_key(call: Call, repository: RepositoryInfo, key: Id) -> DeployKeyView:
    """Read a deploy key."""
    found = await call.services.collaboration.deploy_keys(call.actor, repository.address)
    return _key(one(found, lambda item: item.id, key))


@operations.add("DELETE", REPOSITORY + "/deploy-keys/{key}", access=Access.REPOSITORY_ADMIN)
async def remove_deploy_key(call: Call, repository: RepositoryInfo, key: Id) -> None:
    """Remove a deploy key.

    It stops working at once.
    """
    await call.services.collaboration.remove_deploy_key(call.actor, repository.address, key)
