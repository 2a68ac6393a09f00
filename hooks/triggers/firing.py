"""Firing: the request and its event, written in one transaction, once for each push, rule and ref."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from sqlalchemy import select

from core import failpoints
from core.database import Database
from core.models import RequestKind, TriggerRequest
from core.models.understanding import request_id
from core.outbox import EventName, emit
from gitserver.publish import lock_repository
from hooks.received import ReceivedPush
from hooks.triggers.origin import MAX_CHILDREN, MAX_PER_PARENT, Origin, children_of
from hooks.triggers.parameters import filled_in
from hooks.triggers.spec import RuleSpec
from hooks.triggers.tips import Tip

BEFORE_COMMIT = failpoints.declare("trigger.before-commit", "requests are written and not committed")
AFTER_COMMIT = failpoints.declare("trigger.after-commit", "requests are committed, their push is not done")

# Each has the whole metadata of its commit, and is told to every webhook that wants it.
MAX_PER_PUSH = 100

_EVENTS = {
    RequestKind.TRAINING: EventName.TRAINING_REQUESTED,
    RequestKind.EVALUATION: EventName.EVALUATION_REQUESTED,
    RequestKind.DEPLOYMENT: EventName.DEPLOYMENT_REQUESTED,
}


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule as it counts for one tip, and where it was written."""

    spec: RuleSpec
    source: Literal["file", "rest"]


@dataclass(frozen=True, slots=True)
class Match:
    """A rule that fires for a tip; `metadata` is the summary of the commit."""

    rule: Rule
    tip: Tip
    metadata: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Fired:
    """What became of a match: the id of its request, or why there is none."""

    match: Match
    request: str | None = None
    refusal: str | None = None


async def fire(
    database: Database, push: ReceivedPush, origin: Origin, matches: Sequence[Match]
) -> list[Fired]:
    """Writes what is not written yet, all or nothing, and returns all.

    Raises:
        RepositoryNotFound: it is gone.
        DatabaseUnavailable: nothing was written.
    """
    fired = []
    async with database.transaction() as session:
        # As `core.outbox` demands; and a worker that was taken for dead may be at the same push.
        await lock_repository(session, push.repository.id)
        rows = await session.scalars(select(TriggerRequest).where(TriggerRequest.push_id == push.id))
        known = {(row.rule, row.ref): row.id for row in rows}
        siblings = Counter(await children_of(session, origin.parent) if origin.parent is not None else {})
        for match in matches:
            name = match.rule.spec.name
            rule = (push.repository.id, name)
            request, refusal = known.get((name, match.tip.ref)), None
            if request is None and siblings[rule] >= MAX_PER_PARENT:
                refusal = f"it fired {MAX_PER_PARENT} times for the same request"
            elif request is None and siblings.total() >= MAX_CHILDREN:
                refusal = f"rules fired {MAX_CHILDREN} times for the same request"
            elif request is None and len(known) >= MAX_PER_PUSH:
                refusal = f"a push fires {MAX_PER_PUSH} requests at most"
            elif request is None:
                row = _request(push, origin, match)
                request = known[name, match.tip.ref] = row.id
                session.add(row)
                payload = msgspec.json.decode(row.payload)
                emit(session, _EVENTS[match.rule.spec.run], push.repository.id, payload)
                siblings[rule] += origin.parent is not None
            fired.append(Fired(match, request, refusal))
        failpoints.reach(BEFORE_COMMIT)
    failpoints.reach(AFTER_COMMIT)
    return fired


def _request(push: ReceivedPush, origin: Origin, match: Match) -> TriggerRequest:
    spec, tip = match.rule.spec, match.tip
    words = {
        "commit": tip.commit,
        "ref": tip.ref,
        "branch": tip.branch or "",
        "tag": tip.tag or "",
        "repository": push.repository.path,
    }
    row = TriggerRequest(
        id=request_id(),
        repository_id=push.repository.id,
        push_id=push.id,
        rule=spec.name,
        kind=spec.run,
        ref=tip.ref,
        commit=tip.commit,
        parameters=filled_in(spec.parameters, words),
        chain=list(origin.chain),
        parent=origin.parent,
    )
    payload = {
        "request_id": row.id,
        "rule": row.rule,
        "source": match.rule.source,
        "ref": row.ref,
        "commit": row.commit,
        "parameters": row.parameters,
        "metadata": match.metadata,
        "chain": row.chain,
        "push_id": push.id,
        "actor": push.actor,
    }
    row.payload = msgspec.json.encode(payload).decode()
    return row
