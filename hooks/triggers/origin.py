"""Whether a push is the result of a run, and what keeps runs from asking for themselves for ever.

A push by a token that was made for runs, or one that names the request it answers (`-o run.of=`), is a run's.
It fires only rules that ask for that, only when it names a request, none whose request led to it, and a
limited number of times per request it names: each rule, and, since runs may write rules, all of them. So
every request that a run causes hangs below one that a person caused, at a bounded depth, and there are
finitely many of them: also when a run names the wrong one.
"""

import re
from dataclasses import dataclass, field

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from core.models import TriggerRequest
from hooks.triggers.spec import RuleSpec

MAX_CHAIN = 8
MAX_PER_PARENT = 50
MAX_CHILDREN = 1000

_REQUEST = re.compile("req_[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a push comes from.

    Attributes:
        by_run: a run made it.
        chain: ids of the requests that led to it, oldest first; the last is the one it says it answers.
        rules: the rules behind them, as pairs of repository id and name.
    """

    by_run: bool
    chain: tuple[str, ...] = ()
    rules: frozenset[tuple[str, str]] = field(default=frozenset())

    @property
    def parent(self) -> str | None:
        """The request that the push answers."""
        return self.chain[-1] if self.chain else None

    def refusal(self, repository_id: str, rule: RuleSpec) -> str | None:
        """Why this rule of that repository does not fire for the push, whatever it says of branches."""
        if not self.by_run:
            return None
        if not rule.from_runs:
            return "it does not take pushes of runs, see `from_runs`"
        if self.parent is None:
            return "the push of a run says which request it answers: -o run.of=REQUEST"
        if (repository_id, rule.name) in self.rules:
            return "it led to this push itself"
        if len(self.chain) >= MAX_CHAIN:
            return f"{MAX_CHAIN} requests led to this push, one after the other"
        return None


async def find_origin(session: AsyncSession, answers: str | None, *, by_run: bool) -> Origin | None:
    """The origin of a push that names the request `answers`; None when there is no such request."""
    if answers is None:
        return Origin(by_run)
    if _REQUEST.fullmatch(answers) is None:
        return None
    request = await session.get(TriggerRequest, answers)
    if request is None:
        return None
    chain = (*request.chain, request.id)
    table = TriggerRequest
    rows = await session.execute(select(table.repository_id, table.rule).where(table.id.in_(chain)))
    return Origin(True, chain, frozenset((repository_id, rule) for repository_id, rule in rows))


async def children_of(session: AsyncSession, parent: str) -> dict[tuple[str, str], int]:
    """How often each rule, by repository id and name, fired for pushes that answered this request."""
    table = TriggerRequest
    query = (
        select(table.repository_id, table.rule, func.count())
        .where(table.parent == parent)
        .group_by(table.repository_id, table.rule)
    )
    rows = await session.execute(query)
    return {(repository_id, rule): count for repository_id, rule, count in rows}
