"""Pushes that have nothing to do with models: whoever pushes them need not wait for a report."""

import asyncio
from typing import Final

from sqlalchemy import Text, bindparam, cast, exists, select

from core.database import Database
from core.errors import ModelyardError
from core.models import ModelVersion, TriggerRule
from gitserver.policy import ProposedPush
from hooks.tree_listing import RULES_FILE, interests
from hooks.trees import Trees
from hooks.version import VERSION

# Finding out must cost less than the report.
_SECONDS: Final = 0.5
_HEADS: Final = "refs/heads/"

# Nothing at the commit means anything, all of it was looked at, and nobody made rules.
_PLAIN = select(ModelVersion.commit).where(
    ModelVersion.repository_id == bindparam("repository_id"),
    ModelVersion.commit == bindparam("commit"),
    ModelVersion.version == VERSION,
    cast(ModelVersion.files, Text) == "[]",
    cast(ModelVersion.findings, Text) == "[]",
    ~exists().where(TriggerRule.repository_id == bindparam("repository_id")),
)


class PlainPushes:
    """Knows the pushes of which the server's own steps say nothing."""

    def __init__(self, database: Database, trees: Trees) -> None:
        self._database = database
        self._trees = trees

    async def includes(self, push: ProposedPush) -> bool:
        """Whether no step will say anything. False also when it cannot be told soon.

        That is so for a branch that had no file that means something, when none came. The rules of triggers
        and what calls a rule (push options) mean something. What is in the place of the rules and no file is
        complained of when it comes, and not by every push behind it.
        """
        if push.options or len(push.updates) != 1:
            return False
        update = push.updates[0]
        if not update.name.startswith(_HEADS) or update.creates or update.deletes:
            return False
        before = {"repository_id": push.repository.id, "commit": update.old}
        try:
            async with asyncio.timeout(_SECONDS):
                if not await self._database.rows(_PLAIN, before):
                    return False
                changes = await self._trees.proposed_changes(push, update.old, update.new)
        except (ModelyardError, TimeoutError):
            return False
        return not changes.cut and not any(map(_matters, changes.paths))


def _matters(path: str) -> bool:
    return interests(path) or path.startswith(f"{RULES_FILE}/")
