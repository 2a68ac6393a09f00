"""The services of `core` on one database, and the shortest ways to fill it."""

from dataclasses import dataclass
from typing import Self

from core.access import SYSTEM, Actor, ActorKind
from core.accounts import Accounts
from core.audit import Audit
from core.collaboration import Collaboration
from core.credentials import Credentials
from core.database import Database
from core.keyring import Keyring
from core.models import Visibility
from core.names import parse_address
from core.opening import RepositoryInfo
from core.organisations import Organisations
from core.repositories import Repositories
from core.settings import AuthSettings, RepositorySettings

PASSWORD = "correct horse battery"


@dataclass(frozen=True, slots=True)
class Core:
    """Everything that `core` offers."""

    database: Database
    accounts: Accounts
    organisations: Organisations
    credentials: Credentials
    keyring: Keyring
    repositories: Repositories
    collaboration: Collaboration
    audit: Audit

    @classmethod
    def on(
        cls,
        database: Database,
        *,
        auth: AuthSettings | None = None,
        repositories: RepositorySettings | None = None,
    ) -> Self:
        auth = auth or AuthSettings()
        return cls(
            database=database,
            accounts=Accounts(database, auth),
            organisations=Organisations(database),
            credentials=Credentials(database, auth),
            keyring=Keyring(database, auth),
            repositories=Repositories(database, repositories or RepositorySettings(), auth),
            collaboration=Collaboration(database, auth),
            audit=Audit(database),
        )

    async def user(self, name: str, *, is_admin: bool = False) -> Actor:
        """A new user without a password, as if logged in with one."""
        account = await self.accounts.create_user(SYSTEM, name, is_admin=is_admin)
        return Actor(
            ActorKind.USER, name, user_id=account.id, is_admin=is_admin, credential="password", address="::1"
        )

    async def repository(
        self, path: str, *, actor: Actor = SYSTEM, visibility: Visibility = Visibility.PRIVATE
    ) -> RepositoryInfo:
        """A new repository."""
        return await self.repositories.create(actor, parse_address(path), visibility=visibility)
