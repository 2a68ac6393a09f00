"""Who else may use one repository: collaborators, deploy keys, and rules about branches."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from core.access import Actor, Permission
from core.audit import Action, record
from core.database import Database
from core.errors import NotFound, Unprocessable
from core.keyring import KeyInfo, add_key, new_key
from core.lookup import require_user
from core.models import Account, BranchRule, Collaborator, Repository, Role, SshKey
from core.names import Address
from core.opening import Opener
from core.settings import AuthSettings
from core.texts import checked_text
from core.unique import flush_or_exists

_PATTERN = 200
_MAX_RULES = 100


@dataclass(frozen=True, slots=True)
class CollaboratorInfo:
    user: str
    role: Role
    since: datetime


@dataclass(frozen=True, slots=True)
class BranchRuleInfo:
    """Protects the branches that match `pattern`; `pushers` None means everybody who may write."""

    id: int
    pattern: str
    allow_force: bool
    allow_delete: bool
    pushers: tuple[str, ...] | None
    created_at: datetime

    @classmethod
    def of(cls, rule: BranchRule) -> Self:
        return cls(
            id=rule.id,
            pattern=rule.pattern,
            allow_force=rule.allow_force,
            allow_delete=rule.allow_delete,
            pushers=None if rule.pushers is None else tuple(rule.pushers),
            created_at=rule.created_at,
        )


class Collaboration:
    """Every method needs ADMIN on the repository, and refuses as `core.access.authorize` does."""

    def __init__(self, database: Database, auth: AuthSettings) -> None:
        self._opener = Opener(database, auth)

    async def collaborators(self, actor: Actor, address: Address) -> list[CollaboratorInfo]:
        """By name; the owner and members of the owning organisation are not among them."""
        async with self._opener.reading(actor, address, Permission.ADMIN) as (session, repository):
            query = (
                select(Account.name, Collaborator.role, Collaborator.created_at)
                .join(Collaborator, Collaborator.user_id == Account.id)
                .where(Collaborator.repository_id == repository.id)
                .order_by(Account.name)
            )
            rows = await session.execute(query)
            return [CollaboratorInfo(name, Role(role), since) for name, role, since in rows]

    async def set_collaborator(
        self, actor: Actor, address: Address, user: str, role: Role
    ) -> CollaboratorInfo:
        """Gives a user a role, or another one.

        Raises:
            AccountNotFound: no such user.
            Unprocessable: the owner has every right already.
        """
        async with self._opener.changing(actor, address) as (session, repository, info):
            account = await require_user(session, user, lock="share")
            if account.id == repository.owner_id:
                raise Unprocessable(f"{account.name} owns this repository")
            collaborator = await session.get(Collaborator, (repository.id, account.id))
            if collaborator is None:
                collaborator = Collaborator(repository_id=repository.id, user_id=account.id)
                session.add(collaborator)
            collaborator.role = role
            await session.flush()
            record(session, actor, Action.COLLABORATOR_SET, info.path, user=account.name, role=role.value)
            return CollaboratorInfo(account.name, role, collaborator.created_at)

    async def remove_collaborator(self, actor: Actor, address: Address, user: str) -> None:
        """Takes the role away. Raises `NotFound` if the user has none here."""
        async with self._opener.changing(actor, address) as (session, repository, info):
            account = await require_user(session, user)
            collaborator = await session.get(Collaborator, (repository.id, account.id))
            if collaborator is None:
                raise NotFound(f"{account.name} is not a collaborator")
            record(session, actor, Action.COLLABORATOR_REMOVE, info.path, user=account.name)
            await session.delete(collaborator)

    async def deploy_keys(self, actor: Actor, address: Address) -> list[KeyInfo]:
        """Oldest first."""
        async with self._opener.reading(actor, address, Permission.ADMIN) as (session, repository):
            query = select(SshKey).where(SshKey.repository_id == repository.id).order_by(SshKey.id)
            return [KeyInfo.of(key) for key in await session.scalars(query)]

    async def add_deploy_key(
        self, actor: Actor, address: Address, text: str, title: str = "", *, read_only: bool = True
    ) -> KeyInfo:
        """Lets whoever holds the key read this repository, or write it too.

        Raises:
            InvalidKey: not a key that is accepted.
            AlreadyExists: the key proves an identity already.
        """
        async with self._opener.changing(actor, address) as (session, repository, info):
            key = new_key(text, title)
            key.repository_id, key.read_only = repository.id, read_only
            await add_key(session, key)
            record(
                session,
                actor,
                Action.DEPLOY_KEY_ADD,
                info.path,
                id=key.id,
                fingerprint=key.fingerprint,
                read_only=read_only,
            )
            return KeyInfo.of(key)

    async def remove_deploy_key(self, actor: Actor, address: Address, key_id: int) -> None:
        """Ends the key at once. Raises `NotFound` if the repository has no such key."""
        async with self._opener.changing(actor, address) as (session, repository, info):
            key = await session.get(SshKey, key_id)
            if key is None or key.repository_id != repository.id:
                raise NotFound("no such deploy key")
            record(
                session, actor, Action.DEPLOY_KEY_REMOVE, info.path, id=key.id, fingerprint=key.fingerprint
            )
            await session.delete(key)

    async def branch_rules(self, actor: Actor, address: Address) -> list[BranchRuleInfo]:
        """Oldest first."""
        async with self._opener.reading(actor, address, Permission.ADMIN) as (session, repository):
            query = (
                select(BranchRule).where(BranchRule.repository_id == repository.id).order_by(BranchRule.id)
            )
            return [BranchRuleInfo.of(rule) for rule in await session.scalars(query)]

    async def add_branch_rule(
        self,
        actor: Actor,
        address: Address,
        pattern: str,
        *,
        allow_force: bool = False,
        allow_delete: bool = False,
        pushers: Sequence[str] | None = None,
    ) -> BranchRuleInfo:
        """Protects the branches whose name matches `pattern`, as in a shell; `*` crosses slashes.

        Raises:
            AlreadyExists: there is a rule with this pattern.
            AccountNotFound: a pusher is no user.
            Unprocessable: the pattern cannot be, or there are 100 rules already.
        """
        async with self._opener.changing(actor, address) as (session, repository, info):
            of_this = select(func.count()).where(BranchRule.repository_id == repository.id)
            if (await session.scalar(of_this) or 0) >= _MAX_RULES:  # each push tries each rule on each ref
                raise Unprocessable(f"a repository has {_MAX_RULES} branch rules at most")
            rule = BranchRule(
                repository_id=repository.id,
                pattern=_checked_pattern(pattern),
                allow_force=allow_force,
                allow_delete=allow_delete,
                pushers=await _checked_pushers(session, pushers),
            )
            session.add(rule)
            await flush_or_exists(session, f"there is a rule for {pattern} already", pattern=pattern)
            _record(session, actor, Action.BRANCH_RULE_ADD, info.path, rule)
            return BranchRuleInfo.of(rule)

    async def update_branch_rule(
        self,
        actor: Actor,
        address: Address,
        rule_id: int,
        *,
        allow_force: bool,
        allow_delete: bool,
        pushers: Sequence[str] | None,
    ) -> BranchRuleInfo:
        """Replaces what a rule allows. Raises `NotFound`, and as `add_branch_rule`."""
        async with self._opener.changing(actor, address) as (session, repository, info):
            rule = await _rule(session, repository, rule_id)
            rule.allow_force, rule.allow_delete = allow_force, allow_delete
            rule.pushers = await _checked_pushers(session, pushers)
            _record(session, actor, Action.BRANCH_RULE_UPDATE, info.path, rule)
            return BranchRuleInfo.of(rule)

    async def remove_branch_rule(self, actor: Actor, address: Address, rule_id: int) -> None:
        """Ends the protection. Raises `NotFound` if the repository has no such rule."""
        async with self._opener.changing(actor, address) as (session, repository, info):
            rule = await _rule(session, repository, rule_id)
            _record(session, actor, Action.BRANCH_RULE_REMOVE, info.path, rule)
            await session.delete(rule)


async def _rule(session: AsyncSession, repository: Repository, rule_id: int) -> BranchRule:
    rule = await session.get(BranchRule, rule_id)
    if rule is None or rule.repository_id != repository.id:
        raise NotFound("no such branch rule")
    return rule


def _checked_pattern(pattern: str) -> str:
    pattern = checked_text(pattern, "pattern", _PATTERN)
    if not pattern or pattern.startswith("refs/") or set(pattern) & set(" ~^:\\"):
        raise Unprocessable("a pattern matches branch names, such as `main` or `release/*`", field="pattern")
    return pattern


async def _checked_pushers(session: AsyncSession, names: Sequence[str] | None) -> list[str] | None:
    """The present names, held until the end of the transaction, because rules know users by name."""
    if names is None:
        return None
    return sorted({(await require_user(session, name, lock="share")).name for name in names})


def _record(session: AsyncSession, actor: Actor, action: Action, path: str, rule: BranchRule) -> None:
    record(
        session,
        actor,
        action,
        path,
        id=rule.id,
        pattern=rule.pattern,
        allow_force=rule.allow_force,
        allow_delete=rule.allow_delete,
        pushers=rule.pushers,
    )
