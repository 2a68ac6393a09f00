"""Pushes into a `GitWorld` without a face: what the client sends, and what it would show its user."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core.access import Actor
from core.models import Transport
from core.repositories import RepositoryInfo
from gitserver.landing import Lander
from gitserver.receive import PushSource, Receiver
from tests.support.git_world import ACTOR, GitWorld, git
from tests.support.wire import Report, packets, push_request, read_report

CAPABILITIES = "report-status side-band-64k push-options object-format=sha1 agent=raw"


@dataclass(frozen=True)
class Pushed:
    """The report, and the lines behind `remote: `."""

    report: Report
    remote: list[str]

    @property
    def ok(self) -> bool:
        return self.report.ok


class Loop:
    """The client's bytes, and the answer."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.answer = b""

    async def read(self, n: int) -> bytes:
        chunk, self._data = self._data[:n], self._data[n:]
        return chunk

    async def write(self, data: bytes) -> None:
        self.answer += data


async def push(
    world: GitWorld,
    repository: RepositoryInfo,
    source: Path,
    refs: Sequence[str],
    *,
    actor: Actor = ACTOR,
    options: Sequence[str] = (),
    capabilities: str = CAPABILITIES,
) -> Pushed:
    """Pushes refs of `source` by their full names, whatever they were; one with `:` in front is deleted."""
    state = await world.snapshots.state(repository.id)
    commands = []
    for ref in refs:
        name = ref.removeprefix(":")
        old = state.refs[name].oid if name in state.refs else "0" * 40
        new = "0" * 40 if ref.startswith(":") else git(source, "rev-parse", name).decode().strip()
        commands.append((old, new, name))
    tips = "".join(f"{new}\n" for _, new, _ in commands if new.strip("0"))
    known = "".join(f"^{value.oid}\n" for value in state.refs.values())
    pack = b""
    if tips:
        has = git(source, "cat-file", "--batch-check", data=known.replace("^", "").encode()).decode()
        known = "".join(f"^{line.split()[0]}\n" for line in has.splitlines() if "missing" not in line)
        arguments = ("pack-objects", "--revs", "--stdout", "-q")
        pack = await asyncio.to_thread(git, source, *arguments, data=(tips + known).encode())
    return await push_pack(
        world, repository, commands, pack, actor=actor, options=options, capabilities=capabilities
    )


async def push_pack(
    world: GitWorld,
    repository: RepositoryInfo,
    commands: Sequence[tuple[str, str, str]],
    pack: bytes,
    *,
    actor: Actor = ACTOR,
    options: Sequence[str] = (),
    capabilities: str = CAPABILITIES,
) -> Pushed:
    """Sends commands (old, new, name) and a pack."""
    loop = Loop(push_request(commands, pack, capabilities=capabilities, options=options))
    lander = Lander(world.publisher, world.git, world.policies, world.last)
    receiver = Receiver(world.snapshots, lander, world.git, world.settings, clearing=world.clearing)
    await receiver.receive(PushSource(repository, actor, Transport.HTTP, True), loop, loop)
    said = b"".join(one[1:] for one in packets(loop.answer) if one[:1] == b"\2").decode()
    lines = [line for line in said.split("\n") if line and "Resolving deltas" not in line]
    return Pushed(read_report(loop.answer), lines)
