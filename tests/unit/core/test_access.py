"""The permission table against the decision point, and the list of the visible against both."""

from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from core.access import (
    ANONYMOUS,
    SYSTEM,
    Actor,
    ActorKind,
    Permission,
    authorize,
    require_account_scope,
    require_site_admin,
    require_write_scope,
    role_of,
    visible_to,
)
from core.database import Database
from core.errors import (
    AuthenticationRequired,
    InvalidCredentials,
    ModelyardError,
    PermissionDenied,
    RepositoryNotFound,
)
from core.models import Repository, Role, Scope, Visibility
from tests.support.core_services import Core
from tests.support.permission_matrix import PAGE, TABLE, Case, Outcome, Subject, cases, render
from tests.support.ssh_public_keys import public_key_text

_ERRORS: dict[Outcome, type[ModelyardError]] = {
    Outcome.AUTH: AuthenticationRequired,
    Outcome.MISSING: RepositoryNotFound,
    Outcome.DENIED: PermissionDenied,
}


class World:
    """One repository of a user, another one of the same user, and one of an organisation."""

    def __init__(self, core: Core, visibility: Visibility) -> None:
        self.core = core
        self._visibility = visibility
        self._names = (f"user-{number}" for number in count(1))

    async def build(self) -> None:
        self.owner = await self.core.user("olivia")
        await self.core.accounts.create_organisation(SYSTEM, "acme", owner="olivia")
        self.target = await self.core.repository("olivia/target", visibility=self._visibility)
        self.other = await self.core.repository("olivia/other", visibility=self._visibility)
        self.shared = await self.core.repository("acme/target", visibility=self._visibility)

    async def actor(self, subject: Subject) -> Actor:
        """The actor as `core.credentials` would make it."""
        match subject:
            case Subject.ANONYMOUS:
                return ANONYMOUS
            case Subject.OWNER:
                return self.owner
            case Subject.SUSPENDED:
                await self.core.accounts.suspend(SYSTEM, "olivia")
                return self.owner
            case Subject.STRANGER:
                return await self.core.user(next(self._names))
            case Subject.SITE_ADMIN:
                return await self.core.user(next(self._names), is_admin=True)
            case Subject.READER | Subject.WRITER | Subject.ADMIN:
                return await self._collaborator(Role(subject.partition(": ")[2]))
            case Subject.ORGANISATION_READ | Subject.ORGANISATION_WRITE | Subject.ORGANISATION_OWNER:
                return await self._member(Role(subject.partition(": ")[2].replace("owner", "admin")))
            case Subject.DEPLOY_KEY_READ:
                return await self._deploy_key(read_only=True)
            case Subject.DEPLOY_KEY_WRITE:
                return await self._deploy_key(read_only=False)
            case Subject.DEPLOY_KEY_ELSEWHERE:
                return await self._deploy_key(read_only=False, other=True)
            case Subject.TOKEN_READ | Subject.TOKEN_WRITE | Subject.TOKEN_ADMIN:
                return await self._token(Scope(subject.partition(": ")[2]))
            case Subject.TOKEN_RESTRICTED:
                return await self._token(Scope.WRITE, "target")
            case Subject.TOKEN_ELSEWHERE:
                return await self._token(Scope.WRITE, "other")

    def repository_id(self, subject: Subject) -> str:
        return self.shared.id if subject.startswith("organisation") else self.target.id

    async def _collaborator(self, role: Role) -> Actor:
        actor = await self.core.user(next(self._names))
        await self.core.collaboration.set_collaborator(SYSTEM, self.target.address, actor.name, role)
        return actor

    async def _member(self, role: Role) -> Actor:
        actor = await self.core.user(next(self._names))
        await self.core.organisations.set_member(SYSTEM, "acme", actor.name, role)
        return actor

    async def _deploy_key(self, *, read_only: bool, other: bool = False) -> Actor:
        address = (self.other if other else self.target).address
        key = await self.core.collaboration.add_deploy_key(
            SYSTEM, address, public_key_text(), read_only=read_only
        )
        actor = await self.core.credentials.authenticate_key(key.fingerprint, "")
        assert actor is not None
        assert actor.kind is ActorKind.DEPLOY_KEY
        return actor

    async def _token(self, scope: Scope, limit: str = "") -> Actor:
        address = {"": None, "target": self.target.address, "other": self.other.address}[limit]
        secret, _ = await self.core.keyring.mint_token(SYSTEM, "olivia", "t", scope, repository=address)
        return await self.core.credentials.authenticate_token(secret, "")


MakeWorld = Callable[[Visibility], Awaitable[World]]


@pytest.fixture
def make_world(database: Database) -> MakeWorld:
    async def make(visibility: Visibility) -> World:
        world = World(Core.on(database), visibility)
        await world.build()
        return world

    return make


async def _outcome(
    session: AsyncSession, actor: Actor, repository: Repository, permission: Permission
) -> Outcome:
    try:
        await authorize(session, actor, repository, permission, anonymous_read=True)
    except tuple(_ERRORS.values()) as error:
        return next(outcome for outcome, kind in _ERRORS.items() if isinstance(error, kind))
    return Outcome.OK


@pytest.mark.parametrize("visibility", list(Visibility))
async def test_every_cell_of_the_table(make_world: MakeWorld, visibility: Visibility) -> None:
    world = await make_world(visibility)
    expected = {str(case): case.outcome for case in cases() if case.visibility is visibility}
    found: dict[str, Outcome] = {}
    for subject in Subject:  # the suspended owner comes last
        actor = await world.actor(subject)
        async with world.core.database.read() as session:
            repository = await session.get_one(Repository, world.repository_id(subject))
            for permission in Permission:
                outcome = await _outcome(session, actor, repository, permission)
                found[str(Case(subject, visibility, permission, outcome))] = outcome
    assert found == expected


@pytest.mark.parametrize("visibility", list(Visibility))
async def test_what_is_listed_is_what_may_be_read(make_world: MakeWorld, visibility: Visibility) -> None:
    world = await make_world(visibility)
    for subject in Subject:
        actor = await world.actor(subject)
        async with world.core.database.read() as session:
            for anonymous_read in (True, False):
                if subject is Subject.SUSPENDED:
                    with pytest.raises(InvalidCredentials):
                        await visible_to(session, actor, anonymous_read=anonymous_read)
                    continue
                condition = await visible_to(session, actor, anonymous_read=anonymous_read)
                listed = set(await session.scalars(select(Repository.id).where(condition)))
                readable = {
                    repository.id
                    for repository in await session.scalars(select(Repository))
                    if await role_of(session, actor, repository, anonymous_read=anonymous_read)
                }
                assert listed == readable, subject


async def test_a_missing_repository_looks_like_a_hidden_one(make_world: MakeWorld) -> None:
    world = await make_world(Visibility.PRIVATE)
    for subject in (Subject.ANONYMOUS, Subject.STRANGER, Subject.TOKEN_ELSEWHERE):
        actor = await world.actor(subject)
        expected = AuthenticationRequired if subject is Subject.ANONYMOUS else RepositoryNotFound
        async with world.core.database.read() as session:
            with pytest.raises(expected) as missing:
                await authorize(session, actor, None, Permission.WRITE, anonymous_read=True)
            hidden = await session.get_one(Repository, world.target.id)
            with pytest.raises(expected) as refused:
                await authorize(session, actor, hidden, Permission.WRITE, anonymous_read=True)
        assert (refused.value.message, refused.value.fields) == (missing.value.message, missing.value.fields)


async def test_without_anonymous_reading_public_means_logged_in(make_world: MakeWorld) -> None:
    world = await make_world(Visibility.PUBLIC)
    stranger = await world.actor(Subject.STRANGER)
    elsewhere = await world.actor(Subject.TOKEN_ELSEWHERE)
    async with world.core.database.read() as session:
        repository = await session.get_one(Repository, world.target.id)
        await authorize(session, stranger, repository, Permission.READ)
        with pytest.raises(AuthenticationRequired):
            await authorize(session, ANONYMOUS, repository, Permission.READ)
        with pytest.raises(RepositoryNotFound):
            await authorize(session, elsewhere, repository, Permission.READ)


async def test_a_refusal_says_what_is_missing(make_world: MakeWorld) -> None:
    world = await make_world(Visibility.PUBLIC)
    wanted = {
        Subject.STRANGER: "your role here is read, and write is needed",
        Subject.TOKEN_READ: "this token has the scope read, and write is needed",
        Subject.DEPLOY_KEY_READ: "this deploy key may only read",
        Subject.TOKEN_ELSEWHERE: "this token is for another repository",
    }
    for subject, message in wanted.items():
        actor = await world.actor(subject)
        async with world.core.database.read() as session:
            repository = await session.get_one(Repository, world.target.id)
            with pytest.raises(PermissionDenied, match=message):
                await authorize(session, actor, repository, Permission.WRITE, anonymous_read=True)


async def test_a_demoted_administrator_loses_the_right_at_once(make_world: MakeWorld) -> None:
    world = await make_world(Visibility.PRIVATE)
    admin = await world.actor(Subject.SITE_ADMIN)
    await world.core.user("another", is_admin=True)
    await world.core.accounts.update_user(SYSTEM, admin.name, is_admin=False)
    async with world.core.database.read() as session:
        repository = await session.get_one(Repository, world.target.id)
        with pytest.raises(RepositoryNotFound):
            await authorize(session, admin, repository, Permission.READ)


_USER = Actor(ActorKind.USER, "u", user_id=1)
_SCOPED = {scope: Actor(ActorKind.USER, "u", user_id=1, scope=scope) for scope in Scope}
_RESTRICTED = Actor(ActorKind.USER, "u", user_id=1, scope=Scope.ADMIN, repository_id="0" * 32)
_DEPLOY_KEY = Actor(ActorKind.DEPLOY_KEY, "deploy-key:1", repository_id="0" * 32)


def test_scopes_for_ones_own_account() -> None:
    for actor in (_USER, _SCOPED[Scope.ADMIN]):
        assert require_account_scope(actor) == require_write_scope(actor) == 1
    assert require_write_scope(_SCOPED[Scope.WRITE]) == 1
    for weak in (_SCOPED[Scope.READ], _SCOPED[Scope.WRITE], _RESTRICTED, _DEPLOY_KEY, SYSTEM):
        with pytest.raises(PermissionDenied):
            require_account_scope(weak)
    for weak in (_SCOPED[Scope.READ], _RESTRICTED, _DEPLOY_KEY, SYSTEM):
        with pytest.raises(PermissionDenied):
            require_write_scope(weak)
    for require in (require_account_scope, require_write_scope, require_site_admin):
        with pytest.raises(AuthenticationRequired):
            require(ANONYMOUS)


def test_who_is_a_site_administrator() -> None:
    require_site_admin(SYSTEM)
    require_site_admin(Actor(ActorKind.USER, "u", user_id=1, is_admin=True))
    require_site_admin(Actor(ActorKind.USER, "u", user_id=1, is_admin=True, scope=Scope.ADMIN))
    for weak in (
        _USER,
        _DEPLOY_KEY,
        Actor(ActorKind.USER, "u", user_id=1, is_admin=True, scope=Scope.WRITE),
        Actor(ActorKind.USER, "u", user_id=1, is_admin=True, scope=Scope.ADMIN, repository_id="0" * 32),
    ):
        with pytest.raises(PermissionDenied):
            require_site_admin(weak)


def test_the_page_is_made_from_the_table() -> None:
    assert set(TABLE) == set(Subject)
    page = Path(__file__).parents[3] / PAGE
    assert page.read_text(encoding="utf-8") == render(), "run: python -m tests.support.permission_matrix"
