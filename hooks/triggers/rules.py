"""Rules that are made over REST, and the requests that rules fired."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from core.access import Actor, Permission
from core.audit import Action, record
from core.database import Database
from core.errors import NotFound, Unprocessable
from core.models import RequestKind, TriggerRequest, TriggerRule, now
from core.names import Address
from core.opening import Opener
from core.settings import AuthSettings
from core.unique import flush_or_exists
from hooks.triggers.errors import InvalidRule
from hooks.triggers.spec import MAX_RULES, RuleSpec, check_rule


@dataclass(frozen=True, slots=True)
class RuleInfo:
    """A rule that was made over REST. One that is not enabled never fires."""

    id: int
    spec: RuleSpec
    enabled: bool
    created_by: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """What one firing of a rule asked for.

    Attributes:
        chain: ids of the requests that led to the push, oldest first; empty for a push of a person.
        payload: the data of the event, as it was sent; empty in lists.
    """

    id: str
    kind: RequestKind
    rule: str
    ref: str
    commit: str
    parameters: dict[str, Any]
    chain: list[str]
    push_id: int
    created_at: datetime
    payload: str = ""

    @property
    def cursor(self) -> tuple[datetime, str]:
        """Its place in the order of `Rules.requests`."""
        return self.created_at, self.id


class Rules:
    """Every method finds and authorises by itself: reading needs WRITE, changing needs ADMIN."""

    def __init__(self, database: Database, auth: AuthSettings) -> None:
        self._opener = Opener(database, auth)

    async def rules(self, actor: Actor, address: Address) -> list[RuleInfo]:
        """By name; those in `.modelyard.toml` are not among them."""
        async with self._opener.reading(actor, address, Permission.WRITE) as (session, repository):
            return list(await rules_of(session, repository.id))

    async def read(self, actor: Actor, address: Address, name: str) -> RuleInfo:
        """One rule. Raises `NotFound`."""
        async with self._opener.reading(actor, address, Permission.WRITE) as (session, repository):
            return _info(await _rule(session, repository.id, name))

    async def add(self, actor: Actor, address: Address, spec: RuleSpec, *, enabled: bool = True) -> RuleInfo:
        """Makes a rule. It takes the place of one that is called so in `.modelyard.toml`.

        Raises:
            InvalidRule: it cannot be.
            AlreadyExists: there is one with this name.
            Unprocessable: there are too many.
        """
        _check(spec)
        async with self._opener.changing(actor, address) as (session, repository, info):
            of_this = select(func.count()).where(TriggerRule.repository_id == repository.id)
            if (await session.scalar(of_this) or 0) >= MAX_RULES:
                raise Unprocessable(f"a repository has {MAX_RULES} rules at most, beside those in its file")
            rule = TriggerRule(
                repository_id=repository.id,
                name=spec.name,
                spec=msgspec.to_builtins(spec),
                enabled=enabled,
                created_by=actor.name,
            )
            session.add(rule)
            await flush_or_exists(session, f"there is a rule {spec.name} already", name=spec.name)
            _record(session, actor, Action.TRIGGER_RULE_ADD, info.path, rule)
            return _info(rule)

    async def update(
        self,
        actor: Actor,
        address: Address,
        name: str,
        changes: dict[str, Any],
        *,
        enabled: bool | None = None,
    ) -> RuleInfo:
        """Replaces members of a rule, by name; None for `enabled` leaves that as it is.

        Raises:
            NotFound: there is no such rule.
            InvalidRule: it cannot be like that.
        """
        async with self._opener.changing(actor, address) as (session, repository, info):
            rule = await _rule(session, repository.id, name)
            spec = msgspec.structs.replace(_info(rule).spec, **changes)
            _check(spec)
            rule.spec = msgspec.to_builtins(spec)
            rule.enabled = rule.enabled if enabled is None else enabled
            rule.updated_at = now()
            _record(session, actor, Action.TRIGGER_RULE_UPDATE, info.path, rule)
            return _info(rule)

    async def remove(self, actor: Actor, address: Address, name: str) -> None:
        """Deletes a rule; what it fired stays. Raises `NotFound`."""
        async with self._opener.changing(actor, address) as (session, repository, info):
            rule = await _rule(session, repository.id, name)
            _record(session, actor, Action.TRIGGER_RULE_REMOVE, info.path, rule)
            await session.delete(rule)

    async def requests(
        self,
        actor: Actor,
        address: Address,
        *,
        rule: str | None = None,
        kind: RequestKind | None = None,
        ref: str | None = None,
        limit: int = 100,
        after: tuple[datetime, str] | None = None,
    ) -> list[RequestInfo]:
        """What rules asked for, newest first; `after` is the cursor of the last one of the page before."""
        query = _requests().order_by(TriggerRequest.created_at.desc(), TriggerRequest.id.desc()).limit(limit)
        for column, value in (
            (TriggerRequest.rule, rule),
            (TriggerRequest.kind, kind),
            (TriggerRequest.ref, ref),
        ):
            if value is not None:
                query = query.where(column == value)
        if after is not None:
            moment, last = after
            older = TriggerRequest.created_at < moment
            query = query.where(
                or_(older, (TriggerRequest.created_at == moment) & (TriggerRequest.id < last))
            )
        async with self._opener.reading(actor, address, Permission.WRITE) as (session, repository):
            rows = await session.execute(query.where(TriggerRequest.repository_id == repository.id))
            return [_request(row) for row in rows]

    async def request(self, actor: Actor, address: Address, request_id: str) -> RequestInfo:
        """One request with its payload. Raises `NotFound`."""
        async with self._opener.reading(actor, address, Permission.WRITE) as (session, repository):
            found = await session.get(TriggerRequest, request_id)
            if found is None or found.repository_id != repository.id:
                raise NotFound("no such request")
            return _request(found, found.payload)


async def rules_of(session: AsyncSession, repository_id: str) -> Iterator[RuleInfo]:
    """All rules of a repository that were made over REST, by name."""
    query = select(TriggerRule).where(TriggerRule.repository_id == repository_id).order_by(TriggerRule.name)
    return map(_info, await session.scalars(query))


def _requests() -> Any:
    """All columns but the payload, which no list shows."""
    table = TriggerRequest
    return select(
        table.id,
        table.kind,
        table.rule,
        table.ref,
        table.commit,
        table.parameters,
        table.chain,
        table.push_id,
        table.created_at,
    )


def _request(row: Any, payload: str = "") -> RequestInfo:
    return RequestInfo(
        id=row.id,
        kind=RequestKind(row.kind),
        rule=row.rule,
        ref=row.ref,
        commit=row.commit,
        parameters=row.parameters,
        chain=row.chain,
        push_id=row.push_id,
        created_at=row.created_at,
        payload=payload,
    )


async def _rule(session: AsyncSession, repository_id: str, name: str) -> TriggerRule:
    query = select(TriggerRule).where(TriggerRule.repository_id == repository_id, TriggerRule.name == name)
    rule: TriggerRule | None = await session.scalar(query)
    if rule is None:
        raise NotFound("no such rule")
    return rule


def _info(rule: TriggerRule) -> RuleInfo:
    return RuleInfo(
        id=rule.id,
        spec=msgspec.convert(rule.spec, RuleSpec),
        enabled=rule.enabled,
        created_by=rule.created_by,
        created_at=rule.created_at,
        updated_at=rule.updated_at,
    )


def _check(spec: RuleSpec) -> None:
    if problems := list(check_rule(spec)):
        raise InvalidRule(problems)


def _record(session: AsyncSession, actor: Actor, action: Action, path: str, rule: TriggerRule) -> None:
    spec = {key: value for key, value in rule.spec.items() if key not in ("name", "parameters")}
    record(session, actor, action, path, name=rule.name, enabled=rule.enabled, rule=spec)
