"""Locks bind pushes: nobody changes a path that somebody else has locked."""

from collections.abc import Mapping, Sequence

from core.access import Actor, ActorKind
from core.repositories import RepositoryInfo
from gitserver.policy import ProposedPush, guilty
from gitserver.process import GitRunner
from gitserver.touches import changed_paths
from gitserver.updates import RefUpdate
from lfs.locks import Locks

_LISTED = 100


class LockedPaths:
    """Refuses pushes, and commits over the API, whose new commits touch what others have locked.

    git-lfs asks before it pushes and stops by itself; this is for every other client. Merging what the
    holder has pushed is no change. The administration command line is not bound.
    """

    def __init__(self, git: GitRunner, locks: Locks) -> None:
        self._git = git
        self._locks = locks

    async def before_pack(
        self, repository: RepositoryInfo, actor: Actor, updates: Sequence[RefUpdate]
    ) -> Mapping[str, str]:
        """Refuses nothing: what commits touch is in the pack."""
        return {}

    async def check(self, push: ProposedPush) -> Mapping[str, str]:
        """Refuses the updates that bring such commits, and lists paths and holders."""
        if push.actor.kind is ActorKind.SYSTEM or all(one.deletes for one in push.updates):
            return {}
        held = await self._locks.held_by_others(push.repository.id, push.actor)
        if not held:
            return {}
        touched = sorted(await self._touched(push, push.updates, held))
        if not touched:
            return {}
        for path in touched[:_LISTED]:
            push.say(f"{path} is locked by {held[path]}")
        if len(touched) > _LISTED:
            push.say(f"and {len(touched) - _LISTED} more locked paths")
        more = f" (and {len(touched) - 1} more locked paths)" if len(touched) > 1 else ""
        reason = f"{touched[0]} is locked by {held[touched[0]]}{more}"

        async def touches(one: RefUpdate) -> bool:
            return bool(await self._touched(push, [one], held))

        return {one.name: reason for one in await guilty(push.updates, touches)}

    async def _touched(
        self, push: ProposedPush, updates: Sequence[RefUpdate], held: Mapping[str, str]
    ) -> set[str]:
        found = set()
        async with changed_paths(self._git, push.quarantine, updates, among=held.keys()) as paths:
            async for path in paths:
                if path in held:
                    found.add(path)
        return found
