"""From a password, a token or a key to the actor behind it."""

import time
from datetime import datetime, timedelta

import structlog
from sqlalchemy import bindparam, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core import tokens
from core.access import Actor, ActorKind
from core.database import Database, DatabaseUnavailable
from core.errors import InvalidCredentials
from core.lookup import find_account
from core.models import AccessToken, Account, AccountKind, Scope, SshKey, now
from core.passwords import Passwords
from core.settings import AuthSettings
from core.throttle import Throttle

log = structlog.get_logger(__name__)

_TOUCH = timedelta(minutes=1)
_WRONG = "the user name, password or token is wrong"


# Built once: every request needs it, and to build it takes longer than SQLite takes to answer it.
_BY_TOKEN = (
    select(
        AccessToken.id,
        AccessToken.scope,
        AccessToken.repository_id,
        AccessToken.for_runs,
        AccessToken.expires_at,
        AccessToken.last_used_at,
        Account.id.label("user_id"),
        Account.name,
        Account.is_admin,
        Account.suspended_at,
    )
    .join(Account, Account.id == AccessToken.user_id)
    .where(AccessToken.digest == bindparam("digest"))
)


class Credentials:
    """Proves who somebody is. Every call reads the current rows, so who is suspended or deleted is out."""

    def __init__(self, database: Database, auth: AuthSettings) -> None:
        self._database = database
        self._passwords = Passwords(auth)
        self._throttle = Throttle(auth)
        self._no_notes_before = 0.0

    async def authenticate_basic(self, user: str, secret: str, address: str) -> Actor:
        """Who sent `user` and `secret`: a password, or a token with any user name.

        Raises:
            InvalidCredentials: in the same words and after the same time, whatever is wrong.
            TooManyRequests: too many failures of this account or from this address; tokens still work.
        """
        if tokens.is_token(secret):
            return await self.authenticate_token(secret, address)
        account, failed_before = await self._look(user, address)
        if account and not failed_before and self._passwords.is_remembered(secret, account.password_hash):
            return _user(account, "password", address)
        async with self._passwords.slots:
            # Looked at again inside: of many guesses at once, those that had to wait meet the back-off.
            account, failed_before = await self._look(user, address)
            stored = account.password_hash if account else None
            known = self._passwords.is_remembered(secret, stored)
            if account and (known or await self._passwords.verify(secret, stored)):
                if failed_before:
                    async with self._database.transaction() as session:
                        await self._throttle.succeeded(session, account.name)
                return _user(account, "password", address)
            if not account:
                await self._passwords.verify(secret, None)
            async with self._database.transaction() as session:
                name = account.name if account else user.lower()
                await self._throttle.failed(session, name, address)
        log.info("login_failed", account=account.name if account else None, address=address)
        raise InvalidCredentials(_WRONG)

    async def authenticate_token(self, secret: str, address: str) -> Actor:
        """The user whose token `secret` is.

        Wrong tokens are not counted as failed logins: nobody guesses one, and a forgotten job with an
        expired token must not lock out its neighbours.

        Raises:
            InvalidCredentials: malformed, unknown, expired, or its user is suspended.
        """
        if not tokens.is_well_formed(secret):
            raise InvalidCredentials(_WRONG)
        rows = await self._database.rows(_BY_TOKEN, {"digest": tokens.digest(secret)})
        if not rows or (found := rows[0]).suspended_at is not None:
            raise InvalidCredentials(_WRONG)
        if found.expires_at is not None and found.expires_at <= now():
            raise InvalidCredentials(f"this token expired on {found.expires_at:%Y-%m-%d}")
        await self._touch(AccessToken, found.id, found.last_used_at)
        return Actor(
            ActorKind.USER,
            found.name,
            user_id=found.user_id,
            is_admin=found.is_admin,
            scope=Scope(found.scope),
            repository_id=found.repository_id,
            for_runs=found.for_runs,
            credential=f"token:{found.id}",
            address=address,
        )

    async def authenticate_key(self, fingerprint: str, address: str) -> Actor | None:
        """Whose key has this fingerprint (`SHA256:…`); None: nobody's, or their account is suspended.

        The caller has seen a signature by the key, or only wants to know whether to ask for one.
        """
        query = (
            select(SshKey, Account)
            .outerjoin(Account, Account.id == SshKey.user_id)
            .where(SshKey.fingerprint == fingerprint)
        )
        async with self._database.read() as session:
            row = (await session.execute(query)).one_or_none()
        if row is None:
            return None
        key: SshKey = row[0]
        account: Account | None = row[1]
        if account and account.suspended_at is not None:
            return None
        await self._touch(SshKey, key.id, key.last_used_at)
        credential = f"key:{key.id}"
        if account:
            return _user(account, credential, address)
        return Actor(
            ActorKind.DEPLOY_KEY,
            f"deploy-key:{key.id}",
            repository_id=key.repository_id,
            read_only=key.read_only,
            credential=credential,
            address=address,
        )

    async def _look(self, user: str, address: str) -> tuple[Account | None, bool]:
        """The user who may try to log in, and whether failures are on record. Raises `TooManyRequests`."""
        async with self._database.read() as session:
            account = await _login_account(session, user)
            name = account.name if account else user.lower()
            return account, await self._throttle.check(session, name, address)

    async def _touch(
        self, table: type[AccessToken] | type[SshKey], number: int, last_used_at: datetime | None
    ) -> None:
        """Notes the use, at most once a minute, so that reading stays reading."""
        moment = now()
        if last_used_at is not None and last_used_at > moment - _TOUCH:
            return
        if time.monotonic() < self._no_notes_before:
            return
        stale = or_(table.last_used_at.is_(None), table.last_used_at <= moment - _TOUCH)
        try:
            async with self._database.transaction() as session:
                await session.execute(
                    update(table).where(table.id == number, stale).values(last_used_at=moment)
                )
        except DatabaseUnavailable:  # a clone must not fail because a note about it cannot be written
            # Nor may every request wait in turn for a writer that goes on and on.
            self._no_notes_before = time.monotonic() + _TOUCH.total_seconds()
            log.warning("last_use_not_noted", credential=f"{table.__tablename__}:{number}")


async def _login_account(session: AsyncSession, user: str) -> Account | None:
    account = await find_account(session, user)
    if account is None or account.kind != AccountKind.USER or account.suspended_at is not None:
        return None
    return account


def _user(account: Account, credential: str, address: str) -> Actor:
    return Actor(
        ActorKind.USER,
        account.name,
        user_id=account.id,
        is_admin=account.is_admin,
        credential=credential,
        address=address,
    )
