"""The step "triggers" of the post-receive pipeline, run by hand."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select

from core.models import Push, RequestKind, Transport, TriggerRequest
from core.settings import AuthSettings
from gitserver.updates import RefUpdate
from hooks.received import ReceivedPush, Report
from hooks.triggers.rules import Rules
from hooks.triggers.step import Triggers
from hooks.triggers.tips import Tips
from hooks.versions import Versions
from tests.support.hooks_world import HooksWorld

FILE = ".modelyard.toml"


def rule(name: str, *lines: str, run: str = "training") -> str:
    return "\n".join(["[[rule]]", f'name = "{name}"', f'run = "{run}"', *lines, ""])


class Rig:
    """The step, run by hand for the last push."""

    def __init__(self, world: HooksWorld) -> None:
        self.world = world
        self.rules = Rules(world.database, AuthSettings())
        self.versions = Versions(world.database, world.trees, world.parsing)
        tips = Tips(world.git.snapshots, world.git.reader.objects)
        self.step = Triggers(world.database, tips, world.trees, self.versions)

    async def received(self, *options: str, by_run: bool = False) -> ReceivedPush:
        async with self.world.database.transaction() as session:
            row = (await session.scalars(select(Push).order_by(Push.id.desc()).limit(1))).one()
            row.by_run = by_run
        return ReceivedPush(
            id=row.id,
            repository=self.world.repository,
            actor=row.actor,
            actor_id=row.actor_id,
            transport=Transport(row.transport),
            updates=tuple(RefUpdate(one["ref"], one["old"], one["new"]) for one in row.updates),
            options=options,
            by_run=by_run,
            created_at=row.created_at,
        )

    async def run(self, *options: str, by_run: bool = False) -> list[str]:
        """What whoever pushed is told."""
        report = Report()
        await self.step.run(await self.received(*options, by_run=by_run), report)
        return list(report.lines)

    async def push(
        self, files: Mapping[str, bytes | str], *options: str, branch: str = "main", by_run: bool = False
    ) -> list[str]:
        data = {path: one.encode() if isinstance(one, str) else one for path, one in files.items()}
        await self.world.commit(data, branch=branch)
        return await self.run(*options, by_run=by_run)

    async def requests(self) -> list[TriggerRequest]:
        """All that were made, oldest first."""
        query = select(TriggerRequest).order_by(TriggerRequest.created_at, TriggerRequest.id)
        async with self.world.database.read() as session:
            return list(await session.scalars(query))

    async def fired(self) -> list[str]:
        return [one.rule for one in await self.requests()]

    async def events(self) -> list[dict[str, Any]]:
        names = [f"{kind}.requested" for kind in RequestKind]
        return [event.payload for event in await self.world.events(*names)]


def with_updates(push: ReceivedPush, *updates: RefUpdate) -> ReceivedPush:
    """The same push with other updates."""
    members = {name: getattr(push, name) for name in push.__slots__}
    return ReceivedPush(**{**members, "updates": updates})
