"""The operator's hook programs as a policy and as a step: Git's own contract (githooks(5)).

They see a bare repository of their own, thrown away afterwards: snapshots are shared and never change, and
what is in quarantine is what was checked.
"""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from secrets import token_hex

import structlog

from core.access import Actor
from core.errors import Unavailable
from core.models import Transport
from core.repositories import RepositoryInfo
from core.settings import HooksSettings
from gitserver.policy import ProposedPush
from gitserver.quarantine import open_workplace
from gitserver.snapshots import Snapshot, Snapshots
from gitserver.updates import RefUpdate
from hooks.programs import Moment, Program, UnsafeProgram, find_programs
from hooks.received import ReceivedPush, Report

log = structlog.get_logger(__name__)

# All that programs inherit: of the server's own environment, settings and credentials would be the rest.
_INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR")


class ProgramsUnusable(Unavailable):
    """The hook programs of this server cannot be run as they are; its log says why."""

    code = "hook_programs_unusable"


class ExecutablePolicy:
    """`pre-receive` and `update`, as a policy that is asked last."""

    def __init__(self, directory: Path, settings: HooksSettings) -> None:
        self._directory = directory
        self._seconds = settings.timeout_seconds

    async def before_pack(
        self, repository: RepositoryInfo, actor: Actor, updates: Sequence[RefUpdate]
    ) -> Mapping[str, str]:
        """Refuses nothing: programs may look at objects."""
        return {}

    async def check(self, push: ProposedPush) -> Mapping[str, str]:
        """Refuses all when a `pre-receive` does not exit with 0, one ref when an `update` does not for it.

        Raises:
            ProgramsUnusable: one of them is not safe to run; none was.
        """
        before = await _programs(self._directory, Moment.PRE_RECEIVE)
        each = await _programs(self._directory, Moment.UPDATE)
        if not before and not each:
            return {}
        place = push.quarantine.path / f"hooks-{token_hex(4)}"
        snapshot = push.quarantine.snapshot
        await asyncio.to_thread(_make_repository, place, snapshot, push.quarantine.objects)
        environment = {
            **_environment(push.repository, push.actor.name, push.transport, push.options),
            "GIT_DIR": str(place),
            "GIT_OBJECT_DIRECTORY": str(place / "objects"),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(snapshot.objects),
            "GIT_QUARANTINE_PATH": str(place / "objects"),
        }

        async def refusal(
            programs: Iterable[Program], arguments: Sequence[str] = (), data: bytes = b""
        ) -> str | None:
            for program in programs:
                ended = await program.run(
                    arguments,
                    data=data,
                    environment=environment,
                    cwd=place,
                    seconds=self._seconds,
                    say=push.say,
                )
                if ended is not None:
                    log.info("hooks.program_refused", program=program.name, reason=ended)
                    return f"{program.name} hook declined: it {ended}"
            return None

        reason = await refusal(before, data=_lines(push.updates))
        if reason is not None:
            return {one.name: reason for one in push.updates}
        refused = {one.name: await refusal(each, (one.name, one.old, one.new)) for one in push.updates}
        return {name: reason for name, reason in refused.items() if reason is not None}


class RunExecutables:
    """`post-receive`, as a step. As with Git, the exit status changes nothing; it is reported and logged."""

    name = "executables"

    def __init__(self, directory: Path, snapshots: Snapshots, settings: HooksSettings) -> None:
        self._directory = directory
        self._snapshots = snapshots
        self._seconds = settings.timeout_seconds

    async def run(self, push: ReceivedPush, report: Report) -> None:
        """Runs all programs, one after the other; all once more when the server dies before they are done.

        Raises:
            ProgramsUnusable: one of them is not safe to run; none was.
            RepositoryNotFound, CacheUnavailable: as `Snapshots.open`.
        """
        programs = await _programs(self._directory, Moment.POST_RECEIVE)
        if not programs:
            return
        async with self._repository(push.repository.id) as place:
            environment = {
                **_environment(push.repository, push.actor, push.transport, push.options),
                "GIT_DIR": str(place),
                "MODELYARD_PUSH_ID": str(push.id),
            }
            for program in programs:
                ended = await program.run(
                    data=_lines(push.updates),
                    environment=environment,
                    cwd=place,
                    seconds=self._seconds,
                    say=report.say,
                )
                if ended is not None:
                    log.warning("hooks.program_failed", program=program.name, push_id=push.id, reason=ended)
                    report.say(f"{program.name} hook: it {ended}")

    @asynccontextmanager
    async def _repository(self, repository_id: str) -> AsyncIterator[Path]:
        async with (
            self._snapshots.open(repository_id) as snapshot,
            open_workplace(self._snapshots.root) as workplace,
        ):
            place = workplace / "repository"
            await asyncio.to_thread(_make_repository, place, snapshot)
            yield place


async def _programs(directory: Path, moment: Moment) -> list[Program]:
    try:
        return await asyncio.to_thread(find_programs, directory, moment)
    except UnsafeProgram as error:
        log.error("hooks.programs_unusable", reason=str(error))  # noqa: TRY400 - no traceback for a file mode
        raise ProgramsUnusable(
            "the hook programs of this server are out of order; tell its operator"
        ) from error


def _make_repository(place: Path, snapshot: Snapshot, quarantine: Path | None = None) -> None:
    """A repository in which programs may write: with the refs and objects of a snapshot, packs of a push."""
    for folder in ("refs/heads", "objects/pack", "objects/info"):
        (place / folder).mkdir(parents=True)
    for name in ("HEAD", "config"):
        shutil.copyfile(snapshot.path / name, place / name)
    # Git changes none of these in place: it writes new files and renames or deletes.
    (place / "packed-refs").hardlink_to(snapshot.path / "packed-refs")
    for pack in (quarantine / "pack").iterdir() if quarantine else ():
        (place / "objects/pack" / pack.name).hardlink_to(pack)
    (place / "objects/info/alternates").write_text(f"{snapshot.objects}\n", encoding="utf-8")


def _environment(
    repository: RepositoryInfo, actor: str, transport: Transport | None, options: Sequence[str]
) -> dict[str, str]:
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    # The wire could carry a NUL, the environment cannot.
    numbered = {f"GIT_PUSH_OPTION_{n}": option.replace("\0", "\ufffd") for n, option in enumerate(options)}
    return {
        **inherited,
        **numbered,
        "GIT_PUSH_OPTION_COUNT": str(len(options)),
        "MODELYARD_REPOSITORY": repository.path,
        "MODELYARD_REPOSITORY_ID": repository.id,
        "MODELYARD_ACTOR": actor,
        "MODELYARD_TRANSPORT": transport or "",
    }


def _lines(updates: Iterable[RefUpdate]) -> bytes:
    return "".join(f"{one.old} {one.new} {one.name}\n" for one in updates).encode()
