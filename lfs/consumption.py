"""What an owner uses over all repositories, told to those who may know."""

from dataclasses import dataclass

from core.access import Actor, require_account_admin
from core.database import Database
from core.errors import AccountNotFound
from core.lookup import require_account
from core.models import AccountKind, Repository
from core.settings import LfsSettings
from lfs.objects import Usage, usage_where


@dataclass(frozen=True, slots=True)
class Consumed:
    """`quota_bytes` 0 is no limit. Objects in several repositories count in each."""

    owner: str
    usage: Usage
    quota_bytes: int


class Consumption:
    """Sums over private repositories, so only for the owner."""

    def __init__(self, database: Database, settings: LfsSettings) -> None:
        self._database = database
        self._default = settings.quota_bytes

    async def of(self, actor: Actor, name: str, kind: AccountKind) -> Consumed:
        """What a user or an organisation uses; the name may be a former one.

        Raises:
            AccountNotFound: there is no such user, or no such organisation.
            AuthenticationRequired, PermissionDenied: as `core.access.require_account_admin`.
        """
        async with self._database.read() as session:
            owner = await require_account(session, name)
            if owner.kind != kind:
                raise AccountNotFound("no such account")
            await require_account_admin(session, actor, owner)
            usage = await usage_where(session, Repository.owner_id == owner.id)
            limit = self._default if owner.lfs_quota_bytes is None else owner.lfs_quota_bytes
            return Consumed(owner.name, usage, limit)
