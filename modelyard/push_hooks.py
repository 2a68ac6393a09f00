"""The part of the composition root for plug-ins, the operator's programs, and the post-receive pipeline."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core.database import Database
from core.errors import SettingsError
from core.settings import HooksSettings, Settings
from gitserver.policy import PreReceive
from gitserver.snapshots import Snapshots
from hooks import programs
from hooks.executables import ExecutablePolicy, RunExecutables
from hooks.pipeline import Pipeline, PostReceiveStep
from hooks.plain_pushes import PlainPushes
from hooks.plugins import PluginContext, load_plugins
from hooks.trees import Trees


@dataclass(frozen=True, slots=True)
class PushHooks:
    """What others add to the policies, `last` those that are asked last, and the pipeline with all steps."""

    policies: Sequence[PreReceive]
    last: Sequence[PreReceive]
    pipeline: Pipeline


async def build_push_hooks(
    settings: Settings,
    database: Database,
    snapshots: Snapshots,
    trees: Trees,
    steps: Sequence[PostReceiveStep],
) -> PushHooks:
    """Loads the plug-ins, looks at the operator's programs, and puts both behind the server's own `steps`.

    Raises:
        SettingsError: a plug-in cannot be loaded, or a program is not safe to run; the message names it.
    """
    plugins = await asyncio.to_thread(load_plugins, PluginContext(settings, trees))
    own = [step.name for step in steps]
    steps = [*steps, *plugins.steps]
    last: list[PreReceive] = []
    directory = programs_directory(settings.hooks)
    if directory is not None:
        if wrong := await asyncio.to_thread(programs.problems, directory):
            raise SettingsError(f"[hooks] directory: {wrong[0]}")
        last.append(ExecutablePolicy(directory, settings.hooks))
        steps.append(RunExecutables(directory, snapshots, settings.hooks))
    # What others say of a push is theirs to know.
    plain = PlainPushes(database, trees) if len(steps) == len(own) else None
    pipeline = Pipeline(database, steps, settings.hooks, repeatable=own, plain=plain)
    return PushHooks(plugins.policies, last, pipeline)


def programs_directory(settings: HooksSettings) -> Path | None:
    """Where the operator's programs are, if there is such a place."""
    return Path(settings.directory).expanduser().resolve() if settings.directory else None
