"""Back-off on failed logins, per account name and per client address, shared by all nodes.

After `[auth] failures_before_backoff` failures in a row a name is blocked for 1, 2, 4… seconds after each
further one, up to `backoff_max_seconds`. An address is allowed four times as many, because an office shares
one, and a success does not clear it, because an attacker has an account too. Both are forgotten when
nothing failed for `backoff_max_seconds` after the last block.
"""

import contextlib
import ipaddress
import math
from datetime import datetime, timedelta

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.errors import TooManyRequests
from core.models import LoginFailure, now
from core.names import is_account_name
from core.settings import AuthSettings
from core.upsert import insert_into

_ACCOUNT = "account:"
_ADDRESS_ALLOWANCE = 4
_IPV6_SITE = 64  # one customer holds a whole /64


class Throttle:
    """Works inside the caller's transaction."""

    def __init__(self, settings: AuthSettings) -> None:
        self._allowed = settings.failures_before_backoff
        self._longest = settings.backoff_max_seconds

    async def check(self, session: AsyncSession, name: str, address: str) -> bool:
        """Returns whether failures of `name` are on record.

        Raises:
            TooManyRequests: the name or the address is blocked; `retry_after` says how long.
        """
        query = select(LoginFailure.subject, LoginFailure.blocked_until).where(
            LoginFailure.subject.in_(_subjects(name, address))
        )
        moment = now()
        found = {row.subject: row.blocked_until for row in await session.execute(query)}
        wait = max(((until - moment).total_seconds() for until in found.values()), default=0)
        if wait > 0:
            raise TooManyRequests("too many failed logins; wait a little", retry_after=math.ceil(wait))
        return any(subject.startswith(_ACCOUNT) for subject in found)

    async def failed(self, session: AsyncSession, name: str, address: str) -> None:
        """Counts one failed login. Failures of many callers at once are all counted."""
        moment = now()
        forgotten = (
            select(LoginFailure.subject)
            .where(LoginFailure.blocked_until < moment - timedelta(seconds=self._longest))
            .with_for_update(skip_locked=True)
        )
        await session.execute(delete(LoginFailure).where(LoginFailure.subject.in_(forgotten)))
        for subject in _subjects(name, address):
            allowed = self._allowed * (1 if subject.startswith(_ACCOUNT) else _ADDRESS_ALLOWANCE)
            await self._count(session, subject, allowed, moment)

    async def succeeded(self, session: AsyncSession, name: str) -> None:
        """Forgets the failures of `name`, not those of the address."""
        subjects = _subjects(name, "")
        await session.execute(delete(LoginFailure).where(LoginFailure.subject.in_(subjects)))

    async def _count(self, session: AsyncSession, subject: str, allowed: int, moment: datetime) -> None:
        counted = (
            insert_into(session, LoginFailure)
            .values(subject=subject, failures=1, blocked_until=moment)
            .on_conflict_do_update(
                index_elements=[LoginFailure.subject], set_={"failures": LoginFailure.failures + 1}
            )
            .returning(LoginFailure.failures)
        )
        failures = (await session.execute(counted)).scalar_one()
        # The exponent is bounded because nobody needs the number of seconds in 2^1000.
        pause = min(2 ** min(failures - allowed, 30), self._longest) if failures >= allowed else 0
        await session.execute(
            update(LoginFailure)
            .where(LoginFailure.subject == subject)
            .values(blocked_until=moment + timedelta(seconds=pause))
        )


def _subjects(name: str, address: str) -> list[str]:
    """What is counted, always in the same order. Names that no account can have are not worth a row."""
    subjects = []
    if is_account_name(name):
        subjects.append(f"{_ACCOUNT}{name}")
    with contextlib.suppress(ValueError):
        subjects.append(f"address:{site(address)}")
    return subjects


def site(address: str) -> str:
    """Raises `ValueError` if it is no IP address."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is None:
            return str(ipaddress.ip_network((ip.packed, _IPV6_SITE), strict=False))
        ip = ip.ipv4_mapped
    return str(ip)
