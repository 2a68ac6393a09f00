"""Whose events a subscription is about, and who may manage it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import ColumnElement, and_
from sqlalchemy.ext.asyncio import AsyncSession

from core.access import Actor, Permission, require_account_admin, require_site_admin
from core.database import Database
from core.lookup import require_account
from core.models import Webhook
from core.names import Address
from core.opening import RepositoryInfo, require_repository
from core.settings import AuthSettings
from webhooks.errors import WebhookNotFound
from webhooks.streams import lock_webhook


class ScopeKind(StrEnum):
    REPOSITORY = "repository"
    OWNER = "owner"
    SERVER = "server"


@dataclass(frozen=True, slots=True)
class WebhookScope:
    """One repository, everything that one account owns, or (neither) everything on the server."""

    repository: Address | None = None
    owner: str | None = None

    @property
    def kind(self) -> ScopeKind:
        if self.repository is not None:
            return ScopeKind.REPOSITORY
        return ScopeKind.SERVER if self.owner is None else ScopeKind.OWNER


SERVER = WebhookScope()


@dataclass(frozen=True, slots=True)
class Held:
    """A scope that was found, and that the actor may manage.

    `target` is what the audit log calls it: a repository's path, an account's name, or `server`.
    """

    kind: ScopeKind
    target: str
    repository: RepositoryInfo | None = None
    owner_id: int | None = None

    @property
    def repository_id(self) -> str | None:
        return self.repository.id if self.repository else None

    def own(self, webhook: Webhook | None) -> Webhook:
        """The subscription, if it is one of this scope.

        Raises:
            WebhookNotFound: it is not, or there is none.
        """
        ours = (self.repository_id, self.owner_id)
        if webhook is None or (webhook.repository_id, webhook.owner_id) != ours:
            raise WebhookNotFound("no such webhook")
        return webhook

    def condition(self) -> ColumnElement[bool]:
        """True for the subscriptions of this scope; not for those of what lies in it."""
        return and_(
            Webhook.repository_id.is_not_distinct_from(self.repository_id),
            Webhook.owner_id.is_not_distinct_from(self.owner_id),
        )


class Scopes:
    """Transactions about one scope, which is found in them, and the right to manage it asked for.

    It takes ADMIN on a repository; to be the user, or an owner of the organisation; or a site administrator.

    Raises:
        AuthenticationRequired, RepositoryNotFound, PermissionDenied: as `core.access` decides.
        AccountNotFound: there is no such owner.
    """

    def __init__(self, database: Database, auth: AuthSettings) -> None:
        self._database = database
        self._anonymous_read = auth.anonymous_read

    @asynccontextmanager
    async def reading(self, actor: Actor, scope: WebhookScope) -> AsyncIterator[tuple[AsyncSession, Held]]:
        """A snapshot, as `Database.read`."""
        async with self._database.read() as session:
            yield session, await self._hold(session, actor, scope)

    @asynccontextmanager
    async def adding(self, actor: Actor, scope: WebhookScope) -> AsyncIterator[tuple[AsyncSession, Held]]:
        """A unit of work, in which nobody else adds to the scope."""
        async with self._database.transaction() as session:
            yield session, await self._hold(session, actor, scope, lock=True)

    @asynccontextmanager
    async def changing(
        self, actor: Actor, scope: WebhookScope, webhook_id: int
    ) -> AsyncIterator[tuple[AsyncSession, Held, Webhook]]:
        """A unit of work that holds the lock on one subscription.

        Raises:
            WebhookNotFound: the scope has none with this id.
        """
        async with self._database.transaction() as session:
            held = await self._hold(session, actor, scope)
            yield session, held, held.own(await lock_webhook(session, webhook_id))

    async def _hold(
        self, session: AsyncSession, actor: Actor, scope: WebhookScope, *, lock: bool = False
    ) -> Held:
        if scope.repository is not None:
            repository, name = await require_repository(
                session,
                actor,
                scope.repository,
                Permission.ADMIN,
                anonymous_read=self._anonymous_read,
                lock=lock,
            )
            info = RepositoryInfo.of(repository, name)
            return Held(ScopeKind.REPOSITORY, info.path, repository=info)
        if scope.owner is not None:
            account = await require_account(session, scope.owner, lock="update" if lock else None)
            await require_account_admin(session, actor, account)
            return Held(ScopeKind.OWNER, account.name, owner_id=account.id)
        require_site_admin(actor)
        return Held(ScopeKind.SERVER, "server")
