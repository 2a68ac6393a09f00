"""Plug-ins: what installed packages add before and after a push, by the entry-point group `modelyard.hooks`.

An entry point names a callable that gets a `PluginContext` and returns policies and steps in any number:
`gitserver.policy.PreReceive`, `hooks.pipeline.PostReceiveStep`; `docs/hooks.md` is their contract. They run
in the server's process and may do all that it may.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

import structlog

from core.access import Actor
from core.errors import SettingsError, Unavailable
from core.repositories import RepositoryInfo
from core.settings import Settings
from gitserver.policy import PreReceive, ProposedPush
from gitserver.updates import RefUpdate
from hooks.received import PostReceiveStep, ReceivedPush, Report
from hooks.trees import Trees

log = structlog.get_logger(__name__)

GROUP = "modelyard.hooks"
# Higher with every change that a plug-in must know of.
CONTRACT = 1

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PluginContext:
    """What a plug-in gets when it is loaded, once per process and before any push.

    Attributes:
        contract: the version of all that a plug-in deals with; refuse one that you do not know.
        settings: the server's.
        trees: the files of published commits and of those in quarantine.
    """

    settings: Settings
    trees: Trees
    contract: int = CONTRACT


@dataclass(frozen=True, slots=True)
class Plugins:
    """What the plug-ins of this process want to do, in the order of their names."""

    policies: Sequence[PreReceive] = ()
    steps: Sequence[PostReceiveStep] = ()


class PluginFailed(Unavailable):
    """A step of a plug-in did not end as it should."""

    code = "plugin_failed"


def load_plugins(context: PluginContext) -> Plugins:
    """Loads every installed plug-in. Blocking.

    Raises:
        SettingsError: one cannot be loaded, or returns what is neither policy nor step; the message names it.
    """
    policies: list[PreReceive] = []
    steps: dict[str, PostReceiveStep] = {}
    seconds = context.settings.hooks.timeout_seconds
    for point in sorted(entry_points(group=GROUP), key=lambda one: one.name):
        for one in _made_by(point, context):
            if isinstance(one, type) or not isinstance(one, PreReceive | PostReceiveStep):
                raise SettingsError(
                    f"plug-in {point.name}: {one!r} has neither the methods of a policy "
                    "(before_pack, check) nor those of a step (name, run)"
                )
            if isinstance(one, PreReceive):
                policies.append(PluginPolicy(point.name, one, seconds))
            if isinstance(one, PostReceiveStep):
                step = PluginStep(point.name, one, seconds)
                if step.name in steps:
                    raise SettingsError(f"plug-in {point.name}: there are two steps called {step.name}")
                steps[step.name] = step
    return Plugins(policies, tuple(steps.values()))


def plugin_names() -> list[str]:
    """The plug-ins that are installed. Blocking."""
    return sorted(f"{point.name} ({point.value})" for point in entry_points(group=GROUP))


def _made_by(point: EntryPoint, context: PluginContext) -> list[object]:
    try:
        return list(point.load()(context))
    except (Exception, SystemExit) as error:
        log.exception("hooks.plugin_unusable", plugin=point.name)
        raise SettingsError(
            f"plug-in {point.name} ({point.value}) cannot be loaded: {type(error).__name__}: {error}"
        ) from error


class PluginPolicy:
    """A policy that refuses the push when it fails or takes too long."""

    def __init__(self, plugin: str, policy: PreReceive, seconds: float) -> None:
        self._plugin = plugin
        self._policy = policy
        self._seconds = seconds

    async def before_pack(
        self, repository: RepositoryInfo, actor: Actor, updates: Sequence[RefUpdate]
    ) -> Mapping[str, str]:
        return await self._ask(updates, lambda: self._policy.before_pack(repository, actor, updates))

    async def check(self, push: ProposedPush) -> Mapping[str, str]:
        return await self._ask(push.updates, lambda: self._policy.check(push))

    async def _ask(
        self, updates: Sequence[RefUpdate], question: Callable[[], Awaitable[Mapping[str, str]]]
    ) -> Mapping[str, str]:
        names = {one.name for one in updates}
        try:
            refused = await _limited(question, self._seconds)
            return {name: str(reason) for name, reason in refused.items() if name in names}
        except Exception:
            log.exception("hooks.plugin_failed", plugin=self._plugin)
            return dict.fromkeys(names, f"plug-in {self._plugin} failed")


class PluginStep:
    """A step that has failed when it takes too long."""

    def __init__(self, plugin: str, step: PostReceiveStep, seconds: float) -> None:
        self.name = f"{plugin}.{step.name}"
        self._step = step
        self._seconds = seconds

    async def run(self, push: ReceivedPush, report: Report) -> None:
        try:
            await _limited(lambda: self._step.run(push, report), self._seconds)
        except TimeoutError as error:
            raise PluginFailed(f"it took longer than {self._seconds:g} seconds") from error


async def _limited(work: Callable[[], Awaitable[T]], seconds: float) -> T:
    """Raises `TimeoutError`, and `PluginFailed` for work that cancels itself: our own task must live on."""
    try:
        async with asyncio.timeout(seconds):
            return await work()
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise PluginFailed("it was cancelled") from None
