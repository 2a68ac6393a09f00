"""`/branch-rules`: which branches are protected, and from what."""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from core.collaboration import BranchRuleInfo
from core.errors import AccountNotFound, AlreadyExists, Unprocessable
from core.repositories import RepositoryInfo
from modelyard.api.call import Call
from modelyard.api.cursors import Page, Window, one
from modelyard.api.operation import REPOSITORY, Access, Operations
from modelyard.api.parameters import Id, Name

operations = Operations("branch rules", "Which branches are protected, and from what.")

Pattern = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=200,
        description="Matches branch names as a shell does, such as `release/*`; `*` crosses slashes.",
    ),
]
Pushers = Annotated[list[Name], Meta(max_length=100)]


class BranchRuleView(msgspec.Struct):
    """Protects the branches that match `pattern`.

    `pushers` are the only users who may push to them, or null for everybody who may write.
    """

    id: int
    pattern: str
    allow_force: bool
    allow_delete: bool
    pushers: list[str] | None
    created_at: datetime


class BranchRuleLimits(msgspec.Struct, forbid_unknown_fields=True):
    """What a rule allows; it replaces what the rule allowed before."""

    allow_force: bool = False
    allow_delete: bool = False
    pushers: Pushers | None = None


class NewBranchRule(msgspec.Struct, forbid_unknown_fields=True):
    """A rule to be. What is left out is not allowed, except that everybody who may write may push."""

    pattern: Pattern
    allow_force: bool = False
    allow_delete: bool = False
    pushers: Pushers | None = None


def _view(rule: BranchRuleInfo) -> BranchRuleView:
    return msgspec.convert(rule, BranchRuleView, from_attributes=True)


@operations.add("GET", REPOSITORY + "/branch-rules", access=Access.REPOSITORY_ADMIN)
async def list_branch_rules(
    call: Call, repository: RepositoryInfo, window: Window[int]
) -> Page[BranchRuleView]:
    """List branch rules.

    Oldest first.
    """
    found = await call.services.collaboration.branch_rules(call.actor, repository.address)
    return window.page_of_all(found, _view, lambda rule: rule.id)


@operations.add(
    "POST",
    REPOSITORY + "/branch-rules",
    access=Access.REPOSITORY_ADMIN,
    status=201,
    errors=(AccountNotFound, AlreadyExists, Unprocessable),
)
async def add_branch_rule(call: Call, repository: RepositoryInfo, body: NewBranchRule) -> BranchRuleView:
    """Protect branches."""
    rule = await call.services.collaboration.add_branch_rule(
        call.actor,
        repository.address,
        body.pattern,
        allow_force=body.allow_force,
        allow_delete=body.allow_delete,
        pushers=body.pushers,
    )
    call.headers["Location"] = call.repository_url(repository, "/branch-rules/{rule}", rule=rule.id)
    return _view(rule)


@operations.add("GET", REPOSITORY + "/branch-rules/{rule}", access=Access.REPOSITORY_ADMIN)
async def read_branch_rule(call: Call, repository: RepositoryInfo, rule: Id) -> BranchRuleView:
    """Read a branch rule."""
    found = await call.services.collaboration.branch_rules(call.actor, repository.address)
    return _view(one(found, lambda item: item.id, rule))


@operations.add(
    "PUT", REPOSITORY + "/branch-rules/{rule}", access=Access.REPOSITORY_ADMIN, errors=(AccountNotFound,)
)
async def update_branch_rule(
    call: Call, repository: RepositoryInfo, rule: Id, body: BranchRuleLimits
) -> BranchRuleView:
    """Change what a rule allows."""
    changed = await call.services.collaboration.update_branch_rule(
        call.actor,
        repository.address,
        rule,
        allow_force=body.allow_force,
        allow_delete=body.allow_delete,
        pushers=body.pushers,
    )
    return _view(changed)


@operations.add("DELETE", REPOSITORY + "/branch-rules/{rule}", access=Access.REPOSITORY_ADMIN)
async def remove_branch_rule(call: Call, repository: RepositoryInfo, rule: Id) -> None:
    """End a protection."""
    await call.services.collaboration.remove_branch_rule(call.actor, repository.address, rule)
