"""`/rules`: on which pushes training, evaluation or deployment is asked for; `/requests`: what was."""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from core.errors import AlreadyExists, Unprocessable
from core.models import RequestKind
from core.repositories import RepositoryInfo
from hooks.triggers.errors import InvalidRule
from hooks.triggers.rules import RequestInfo, RuleInfo
from hooks.triggers.spec import On, RuleName, RuleSpec, When
from modelyard.api.call import Call
from modelyard.api.cursors import Page, Window
from modelyard.api.operation import REPOSITORY, Access, Operations
from modelyard.api.parameters import RefName, given

operations = Operations(
    "rules",
    "On which pushes training, evaluation or deployment is asked for, and what was. The rules in "
    "`.modelyard.toml` are not listed here; one of the same name here takes the place of one there.",
)

RequestId = Annotated[str, Meta(min_length=1, max_length=64)]


class NewRule(RuleSpec, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """A rule to be: on these pushes, when that is true of the commit, ask for a run.

    `parameters` is any JSON; in its strings `${commit}`, `${ref}`, `${branch}`, `${tag}` and `${repository}`
    are filled in. `from_runs`: pushes that are themselves the result of a run count too. One that is not
    `enabled` never fires, nor does one of the same name in `.modelyard.toml`.
    """

    enabled: bool = True


class RuleChanges(msgspec.Struct, forbid_unknown_fields=True):
    """What is to be different; each member that is given replaces the whole of it."""

    run: RequestKind | UnsetType = UNSET
    on: On | UnsetType = UNSET
    when: When | UnsetType = UNSET
    from_runs: bool | UnsetType = UNSET
    parameters: dict[str, Any] | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET


class RuleView(msgspec.Struct):
    """A rule."""

    name: str
    run: RequestKind
    on: On
    when: When
    from_runs: bool
    parameters: dict[str, Any]
    enabled: bool
    created_by: str
    created_at: datetime
    updated_at: datetime


class RequestView(msgspec.Struct, kw_only=True):
    """What one firing of a rule asked for.

    `chain` is the ids of the requests that led to the push, oldest first; empty for a push of a person.
    """

    id: str
    run: RequestKind
    rule: str
    ref: str
    commit: str
    parameters: dict[str, Any]
    chain: list[str]
    push_id: int
    created_at: datetime


class WholeRequestView(RequestView, kw_only=True):
    """A request with all that its event says: `source` is `file` or `rest`, `metadata` of the commit."""

    source: str
    actor: str
    metadata: dict[str, Any]


def _view(rule: RuleInfo) -> RuleView:
    spec = rule.spec
    return RuleView(
        name=spec.name,
        run=spec.run,
        on=spec.on,
        when=spec.when,
        from_runs=spec.from_runs,
        parameters=spec.parameters,
        enabled=rule.enabled,
        created_by=rule.created_by,
        created_at=rule.created_at,
        updated_at=rule.updated_at,
    )


def _request_view(request: RequestInfo) -> RequestView:
    return RequestView(
        id=request.id,
        run=request.kind,
        rule=request.rule,
        ref=request.ref,
        commit=request.commit,
        parameters=request.parameters,
        chain=request.chain,
        push_id=request.push_id,
        created_at=request.created_at,
    )


@operations.add("GET", REPOSITORY + "/rules", access=Access.REPOSITORY_WRITE)
async def list_rules(call: Call, repository: RepositoryInfo, window: Window[str]) -> Page[RuleView]:
    """List rules.

    By name.
    """
    found = await call.services.rules.rules(call.actor, repository.address)
    return window.page_of_all(found, _view, lambda rule: rule.spec.name)


@operations.add(
    "POST",
    REPOSITORY + "/rules",
    access=Access.REPOSITORY_ADMIN,
    status=201,
    errors=(AlreadyExists, InvalidRule, Unprocessable),
)
async def add_rule(call: Call, repository: RepositoryInfo, body: NewRule) -> RuleView:
    """Make a rule."""
    members = {name: getattr(body, name) for name in RuleSpec.__struct_fields__}
    rule = await call.services.rules.add(
        call.actor, repository.address, RuleSpec(**members), enabled=body.enabled
    )
    call.headers["Location"] = call.repository_url(repository, "/rules/{rule}", rule=rule.spec.name)
    return _view(rule)


@operations.add("GET", REPOSITORY + "/rules/{rule}", access=Access.REPOSITORY_WRITE)
async def read_rule(call: Call, repository: RepositoryInfo, rule: RuleName) -> RuleView:
    """Read a rule."""
    return _view(await call.services.rules.read(call.actor, repository.address, rule))


@operations.add("PATCH", REPOSITORY + "/rules/{rule}", access=Access.REPOSITORY_ADMIN, errors=(InvalidRule,))
async def update_rule(call: Call, repository: RepositoryInfo, rule: RuleName, body: RuleChanges) -> RuleView:
    """Change a rule, or enable or disable it."""
    changes = {
        name: value
        for name, value in msgspec.structs.asdict(body).items()
        if name != "enabled" and value is not UNSET
    }
    changed = await call.services.rules.update(
        call.actor, repository.address, rule, changes, enabled=given(body.enabled)
    )
    return _view(changed)


@operations.add("DELETE", REPOSITORY + "/rules/{rule}", access=Access.REPOSITORY_ADMIN)
async def remove_rule(call: Call, repository: RepositoryInfo, rule: RuleName) -> None:
    """Delete a rule.

    What it asked for stays listed.
    """
    await call.services.rules.remove(call.actor, repository.address, rule)


@operations.add("GET", REPOSITORY + "/requests", access=Access.REPOSITORY_WRITE)
async def list_requests(
    call: Call,
    repository: RepositoryInfo,
    window: Window[tuple[datetime, str]],
    rule: RuleName | None = None,
    run: RequestKind | None = None,
    ref: RefName | None = None,
) -> Page[RequestView]:
    """List what rules asked for.

    Newest first. `ref` is a full name, such as `refs/heads/main`.
    """
    found = await call.services.rules.requests(
        call.actor,
        repository.address,
        rule=rule,
        kind=run,
        ref=ref,
        limit=window.fetch,
        after=window.after,
    )
    return window.page(found, _request_view, lambda request: request.cursor)


@operations.add("GET", REPOSITORY + "/requests/{request}", access=Access.REPOSITORY_WRITE)
async def read_request(call: Call, repository: RepositoryInfo, request: RequestId) -> WholeRequestView:
    """Read a request, with the metadata of the commit."""
    found = await call.services.rules.request(call.actor, repository.address, request)
    told = msgspec.json.decode(found.payload)
    return WholeRequestView(
        **msgspec.structs.asdict(_request_view(found)),
        source=told["source"],
        actor=told["actor"],
        metadata=told["metadata"],
    )
