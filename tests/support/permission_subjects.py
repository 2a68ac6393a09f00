"""Every subject of the permission table on a running server, each before repositories of its own."""

import asyncio
from dataclasses import dataclass, field

from core.access import SYSTEM, Permission
from core.models import RepositoryType, Role, Scope, Visibility
from core.names import Address
from core.repositories import RepositoryInfo
from gitserver.commits import Put
from modelyard.services import Services
from tests.support.permission_matrix import TABLE, Outcome, Subject
from tests.support.raw_http import basic
from tests.support.server import PASSWORD, RunningServer
from tests.support.ssh import ClientKey, make_key

DEPLOY_KEYS = (Subject.DEPLOY_KEY_READ, Subject.DEPLOY_KEY_WRITE, Subject.DEPLOY_KEY_ELSEWHERE)
TOKENS = (
    Subject.TOKEN_READ,
    Subject.TOKEN_WRITE,
    Subject.TOKEN_ADMIN,
    Subject.TOKEN_RESTRICTED,
    Subject.TOKEN_ELSEWHERE,
)
_ORGANISATION = {
    Subject.ORGANISATION_READ: Role.READ,
    Subject.ORGANISATION_WRITE: Role.WRITE,
    Subject.ORGANISATION_OWNER: Role.ADMIN,
}
_COLLABORATOR = {Subject.READER: Role.READ, Subject.WRITER: Role.WRITE, Subject.ADMIN: Role.ADMIN}


@dataclass
class Standing:
    """One subject before one repository."""

    subject: Subject
    repository: RepositoryInfo
    head: str
    login: dict[str, str] = field(default_factory=dict)
    key: ClientKey | None = None

    @property
    def path(self) -> str:
        return self.repository.path

    def outcome(self, permission: Permission) -> Outcome:
        row = TABLE[self.subject][self.repository.visibility].split()
        return Outcome(row[list(Permission).index(permission)])


class Matrix:
    """A server with every subject, and for each a private and a public repository that it stands before."""

    def __init__(self, server: RunningServer) -> None:
        self.server = server
        self._standings: dict[tuple[Subject, Visibility], Standing] = {}

    def __getitem__(self, case: tuple[Subject, Visibility]) -> Standing:
        return self._standings[case]

    async def prepare(self) -> None:
        async with self.server.services() as services:
            for name in ("olivia", "sam", "pat"):
                await services.accounts.create_user(SYSTEM, name, password=PASSWORD)
            await services.accounts.create_organisation(SYSTEM, "acme", owner="olivia")
            for subject in Subject:
                for visibility in Visibility:
                    self._standings[subject, visibility] = await self._place(services, subject, visibility)
            await services.accounts.suspend(SYSTEM, "sam")

    async def another(self, standing: Standing) -> RepositoryInfo:
        """One more repository, without content, before which a user stands in the same way."""
        async with self.server.services() as services:
            name = f"{standing.repository.name}-gone"
            made = await self._repository(services, standing.subject, standing.repository.visibility, name)
            if role := _COLLABORATOR.get(standing.subject):
                user = account_of(standing.subject)
                await services.collaboration.set_collaborator(SYSTEM, made.address, user, role)
            return made

    async def state(self, standing: Standing) -> tuple[object, ...]:
        """All that an operation could change."""
        async with self.server.services() as services:
            address = standing.repository.address
            return (
                await services.repositories.open(SYSTEM, address, Permission.READ),
                await services.collaboration.collaborators(SYSTEM, address),
                await services.collaboration.branch_rules(SYSTEM, address),
                [key.fingerprint for key in await services.collaboration.deploy_keys(SYSTEM, address)],
            )

    async def _repository(
        self, services: Services, subject: Subject, visibility: Visibility, name: str
    ) -> RepositoryInfo:
        owner = "acme" if subject in _ORGANISATION else "sam" if subject is Subject.SUSPENDED else "olivia"
        address = Address(RepositoryType.MODEL, owner, name)
        return await services.repositories.create(SYSTEM, address, visibility=visibility)

    async def _place(self, services: Services, subject: Subject, visibility: Visibility) -> Standing:
        number = len(self._standings)
        repository = await self._repository(services, subject, visibility, f"r{number}-{visibility.value}")
        made = await services.committer.commit(repository, SYSTEM, "main", [Put("dir/a", b"1\n")], "first")
        await services.branches.create_tag(repository, SYSTEM, "v1", "main")
        repository = await services.repositories.open(SYSTEM, repository.address, Permission.READ)
        standing = Standing(subject, repository, made.oid)
        if subject in TOKENS:
            standing.login = await self._token(services, standing)
        elif subject in DEPLOY_KEYS:
            standing.key = await self._deploy_key(services, standing)
        elif subject is not Subject.ANONYMOUS:
            await self._user(services, standing)
        return standing

    async def _user(self, services: Services, standing: Standing) -> None:
        subject, name = standing.subject, account_of(standing.subject)
        if not any(one.name == name for one in await services.accounts.list()):
            await services.accounts.create_user(
                SYSTEM, name, password=PASSWORD, is_admin=subject is Subject.SITE_ADMIN
            )
        if role := _ORGANISATION.get(subject):
            await services.organisations.set_member(SYSTEM, "acme", name, role)
        if role := _COLLABORATOR.get(subject):
            await services.collaboration.set_collaborator(SYSTEM, standing.repository.address, name, role)
        standing.login = basic(name, PASSWORD)
        if subject is Subject.SUSPENDED:  # whose password counts as a wrong one, and is soon slowed down
            secret, _ = await services.keyring.mint_token(SYSTEM, name, "test", Scope.ADMIN)
            standing.login = {"Authorization": f"Bearer {secret}"}
        standing.key = await self._key(standing)
        await services.keyring.add_key(SYSTEM, name, standing.key.public)

    async def _token(self, services: Services, standing: Standing) -> dict[str, str]:
        scopes = {Subject.TOKEN_READ: Scope.READ, Subject.TOKEN_ADMIN: Scope.ADMIN}
        limits = {
            Subject.TOKEN_RESTRICTED: standing.repository.address,
            Subject.TOKEN_ELSEWHERE: self[Subject.OWNER, Visibility.PRIVATE].repository.address,
        }
        secret, _ = await services.keyring.mint_token(
            SYSTEM,
            "olivia",
            "test",
            scopes.get(standing.subject, Scope.WRITE),
            repository=limits.get(standing.subject),
        )
        return {"Authorization": f"Bearer {secret}"}

    async def _deploy_key(self, services: Services, standing: Standing) -> ClientKey:
        key = await self._key(standing)
        where = standing.repository
        if standing.subject is Subject.DEPLOY_KEY_ELSEWHERE:
            where = self[Subject.OWNER, Visibility.PRIVATE].repository
        read_only = standing.subject is Subject.DEPLOY_KEY_READ
        await services.collaboration.add_deploy_key(SYSTEM, where.address, key.public, read_only=read_only)
        return key

    async def _key(self, standing: Standing) -> ClientKey:
        return await asyncio.to_thread(make_key, self.server.directory, standing.repository.name)


def account_of(subject: Subject) -> str:
    owners = {Subject.OWNER: "olivia", Subject.SUSPENDED: "sam"}
    return owners.get(subject) or f"user-{list(Subject).index(subject)}"
