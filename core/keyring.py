"""Everything that a user proves their name with: made, listed and taken away."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from core import tokens
from core.access import Actor, ActorKind, require_account_admin, role_of
from core.audit import Action, record
from core.database import Database
from core.errors import NotFound, PermissionDenied, RepositoryNotFound, Unprocessable
from core.lookup import find_repository, require_user
from core.models import AccessToken, Account, Repository, RepositoryType, Scope, SshKey, now
from core.names import Address
from core.passwords import Passwords
from core.settings import AuthSettings
from core.ssh_keys import parse_public_key
from core.texts import checked_text
from core.tokens import TokenInfo
from core.unique import flush_or_exists

_TITLE = 100
_MAX_DAYS = 3650


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """An SSH public key, of a user or (then `read_only` means something) of a repository."""

    id: int
    title: str
    fingerprint: str
    public_key: str
    read_only: bool
    last_used_at: datetime | None
    created_at: datetime

    @classmethod
    def of(cls, key: SshKey) -> Self:
        return cls(
            id=key.id,
            title=key.title,
            fingerprint=key.fingerprint,
            public_key=key.public_key,
            read_only=key.read_only,
            last_used_at=key.last_used_at,
            created_at=key.created_at,
        )


class Keyring:
    """For users about themselves, and for site administrators about everybody."""

    def __init__(self, database: Database, auth: AuthSettings) -> None:
        self._database = database
        self._passwords = Passwords(auth)
        self._anonymous_read = auth.anonymous_read

    async def set_password(self, actor: Actor, user: str, password: str | None) -> None:
        """Gives a user another password, or none. Whoever changes their own is logged in with it.

        Raises:
            PermissionDenied: a token cannot become a password; somebody else's account.
            Unprocessable: the password cannot be.
        """
        hashed = await self._passwords.hash(password) if password is not None else None
        async with self._database.transaction() as session:
            account = await self._require(session, actor, user)
            if account.id == actor.user_id and actor.credential != "password":
                raise PermissionDenied("log in with the old password to change it")
            account.password_hash = hashed
            record(session, actor, Action.USER_PASSWORD, account.name, removed=hashed is None)

    async def mint_token(
        self,
        actor: Actor,
        user: str,
        name: str,
        scope: Scope,
        *,
        repository: Address | None = None,
        expires_in_days: int | None = None,
        for_runs: bool = False,
    ) -> tuple[str, TokenInfo]:
        """A new token, as its secret, which nobody can ever see again, and the rest.

        What is pushed with one `for_runs` fires no rules, unless they ask for it.

        Raises:
            PermissionDenied: somebody else's account, or a credential below the scope `admin`.
            RepositoryNotFound: the user does not see the repository that it shall be limited to.
            Unprocessable: the name or the number of days cannot be.
        """
        if expires_in_days is not None and not 1 <= expires_in_days <= _MAX_DAYS:
            raise Unprocessable(f"a token expires in 1 to {_MAX_DAYS} days", field="expires_in_days")
        secret = tokens.new_secret()
        async with self._database.transaction() as session:
            account = await self._require(session, actor, user)
            limit, path = await self._limit(session, account, repository)
            token = AccessToken(
                user_id=account.id,
                name=_titled(name, "name"),
                digest=tokens.digest(secret),
                scope=scope,
                repository_id=limit.id if limit else None,
                for_runs=for_runs,
                expires_at=now() + timedelta(days=expires_in_days) if expires_in_days else None,
            )
            session.add(token)
            await session.flush()
            info = TokenInfo.of(token, account.name, path)
            record(
                session,
                actor,
                Action.TOKEN_MINT,
                account.name,
                id=token.id,
                name=token.name,
                scope=scope.value,
                repository=path,
                expires_in_days=expires_in_days,
                for_runs=for_runs,
            )
            return secret, info

    async def tokens(self, actor: Actor, user: str) -> list[TokenInfo]:
        """A user's tokens, oldest first."""
        async with self._database.read() as session:
            account = await self._require(session, actor, user)
            query = (
                select(AccessToken, Repository, Account.name)
                .outerjoin(Repository, Repository.id == AccessToken.repository_id)
                .outerjoin(Account, Account.id == Repository.owner_id)
                .where(AccessToken.user_id == account.id)
                .order_by(AccessToken.id)
            )
            return [
                TokenInfo.of(token, account.name, _path(repository, owner))
                for token, repository, owner in await session.execute(query)
            ]

    async def revoke_token(self, actor: Actor, user: str, token_id: int) -> None:
        """Ends a token at once. Raises `NotFound` if the user has no such token."""
        async with self._database.transaction() as session:
            account = await self._require(session, actor, user)
            token = await session.get(AccessToken, token_id)
            if token is None or token.user_id != account.id:
                raise NotFound("no such token")
            record(session, actor, Action.TOKEN_REVOKE, account.name, id=token.id, name=token.name)
            await session.delete(token)

    async def add_key(self, actor: Actor, user: str, text: str, title: str = "") -> KeyInfo:
        """Lets a user in with the key in `text`, a line of a `.pub` file; its comment is the usual title.

        Raises:
            InvalidKey: not a key that is accepted.
            AlreadyExists: the key proves an identity already, this one or another.
        """
        async with self._database.transaction() as session:
            account = await self._require(session, actor, user)
            key = new_key(text, title)
            key.user_id = account.id
            await add_key(session, key)
            record(session, actor, Action.KEY_ADD, account.name, id=key.id, fingerprint=key.fingerprint)
            return KeyInfo.of(key)

    async def keys(self, actor: Actor, user: str) -> list[KeyInfo]:
        """A user's keys, oldest first."""
        async with self._database.read() as session:
            account = await self._require(session, actor, user)
            query = select(SshKey).where(SshKey.user_id == account.id).order_by(SshKey.id)
            return [KeyInfo.of(key) for key in await session.scalars(query)]

    async def remove_key(self, actor: Actor, user: str, key_id: int) -> None:
        """Ends a key at once. Raises `NotFound` if the user has no such key."""
        async with self._database.transaction() as session:
            account = await self._require(session, actor, user)
            key = await session.get(SshKey, key_id)
            if key is None or key.user_id != account.id:
                raise NotFound("no such key")
            record(session, actor, Action.KEY_REMOVE, account.name, id=key.id, fingerprint=key.fingerprint)
            await session.delete(key)

    async def _require(self, session: AsyncSession, actor: Actor, user: str) -> Account:
        account = await require_user(session, user)
        await require_account_admin(session, actor, account)
        return account

    async def _limit(
        self, session: AsyncSession, account: Account, address: Address | None
    ) -> tuple[Repository | None, str | None]:
        if address is None:
            return None, None
        holder = Actor(ActorKind.USER, account.name, user_id=account.id)
        found = await find_repository(session, address)
        if not found or not await role_of(session, holder, found[0], anonymous_read=self._anonymous_read):
            raise RepositoryNotFound("no such repository, or the user may not see it")
        return found[0], _path(*found)


def new_key(text: str, title: str) -> SshKey:
    """A key row without its subject. Raises `InvalidKey` or `Unprocessable`."""
    parsed = parse_public_key(text)
    return SshKey(
        title=_titled(title.strip() or parsed.comment or parsed.type, "title"),
        fingerprint=parsed.fingerprint,
        public_key=parsed.openssh,
        read_only=False,
    )


async def add_key(session: AsyncSession, key: SshKey) -> None:
    """Writes a key row. Raises `AlreadyExists` if anybody has the key."""
    session.add(key)
    await flush_or_exists(session, "this key is in use already", fingerprint=key.fingerprint)


def _titled(text: str, what: str) -> str:
    text = checked_text(text, what, _TITLE)
    if not text:
        raise Unprocessable(f"the {what} is empty", field=what)
    return text


def _path(repository: Repository | None, owner: str | None) -> str | None:
    if repository is None or owner is None:
        return None
    return Address(RepositoryType(repository.type), owner, repository.name).path
