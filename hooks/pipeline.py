"""The post-receive pipeline: what is done about pushes once they are acknowledged.

Each push comes with a row in the queue, written in its transaction, so whatever crashes, its steps are run.
Steps do not depend on each other: one that fails is tried again later, the others are not.
"""

import asyncio
import contextlib
import random
import time
from collections import OrderedDict
from collections.abc import Collection, Sequence
from datetime import timedelta
from itertools import pairwise

import structlog

from core import failpoints
from core.database import Database
from core.errors import ModelyardError, RepositoryNotFound
from core.polling import Poll
from core.settings import HooksSettings
from gitserver.policy import ProposedPush
from hooks.plain_pushes import PlainPushes
from hooks.queueing import HeldPush, LeaseLost, PushQueue
from hooks.received import PostReceiveStep, ReceivedPush, Report

__all__ = ["Pipeline", "PostReceiveStep", "ReceivedPush", "Report"]

log = structlog.get_logger(__name__)

BEFORE_STEP = failpoints.declare("hooks.before-step", "a push is held, its next step has not begun")
AFTER_STEP = failpoints.declare("hooks.after-step", "a step was run, and nothing says so yet")
BEFORE_END = failpoints.declare("hooks.before-end", "every step was run, the push is still on the queue")

# A killed worker's pushes are another's after the lease: soon, but not while a busy one is late to renew it.
_LEASE_POLLS = 3
_SHORTEST_LEASE = timedelta(seconds=3)
_FIRST_DELAY = timedelta(seconds=10)
_LONGEST_DELAY = timedelta(hours=1)
_ATTEMPTS = 10
# How soon whoever waits for work that nobody here has begun looks whether another process does it.
_LOOK_SECONDS = 0.25
# Reports of pushes whose receiver has not asked for them yet, and of those made here, for which nobody asks.
_REPORTS_KEPT = 64


class _Work:
    """What is known here of one push: for whoever waits, and for whoever works."""

    def __init__(self, steps: Sequence[PostReceiveStep]) -> None:
        self.report = Report()
        self.left = [step.name for step in steps]
        self.began = False
        self.ended = asyncio.Event()


class Pipeline:
    """Works the queue: a `gitserver.policy.PostReceive`. Any number of processes may share it.

    Its work belongs to `run_forever` and `run_due`: whoever waits in `received` may leave.
    """

    def __init__(
        self,
        database: Database,
        steps: Sequence[PostReceiveStep],
        settings: HooksSettings,
        *,
        repeatable: Collection[str] = (),
        plain: PlainPushes | None = None,
    ) -> None:
        """`repeatable` are names of steps of which nobody notices that they ran again after a crash.

        That they are done is stored before the next one that is not, which saves writes. `plain` knows
        pushes of which no step says anything.
        """
        self._plain = plain
        self._steps = steps
        self._stored_later = {
            one.name for one, after in pairwise(steps) if {one.name, after.name} <= set(repeatable)
        }
        self._settings = settings
        lease = timedelta(seconds=_LEASE_POLLS * settings.poll_seconds)
        self._queue = PushQueue(database, max(lease, _SHORTEST_LEASE))
        self._works: OrderedDict[int, _Work] = OrderedDict()
        self._running = False
        self._poll = Poll("hooks.queue", settings.poll_seconds, loops=settings.workers)

    async def reports(self, push: ProposedPush) -> bool:
        """See `gitserver.policy.PostReceive`."""
        if not self._running or not self._settings.report_seconds:
            return False
        return self._plain is None or not await self._plain.includes(push)

    async def received(self, push_id: int) -> Sequence[str]:
        """See `gitserver.policy.PostReceive`; says nothing where `run_forever` does not run.

        What another process sharing the queue did is waited for, and not known here.
        """
        if not self._running or not self._settings.report_seconds:
            return ()
        work = self._works.setdefault(push_id, _Work(self._steps))
        try:
            async with asyncio.timeout(self._settings.report_seconds):
                await self._end_of(push_id, work)
        except TimeoutError:
            pass
        finally:  # also when whoever waits leaves: nothing would take it away but work done here
            if work.ended.is_set() or not work.began:
                self._works.pop(push_id, None)
        if not work.left:
            return work.report.lines
        return (*work.report.lines, f"push {push_id} is still being worked on: {', '.join(work.left)}")

    def hint(self, repository_id: str) -> None:
        """There is something new; for `Publisher.listeners`."""
        self._poll.hint()

    async def run_forever(self) -> None:
        """Works until cancelled; what it worked on then is taken up by whoever comes next."""
        self._running = True
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._settings.workers):
                    group.create_task(self._poll.forever(self.run_due))
        finally:
            self._running = False
            for work in self._works.values():
                work.ended.set()

    async def run_due(self) -> int:
        """Works on every push that is due now; returns how many were tried. Raises `DatabaseUnavailable`."""
        tried = 0
        while await self._work_next():
            tried += 1
        return tried

    async def queue_length(self) -> int:
        """How many pushes wait or are being worked on. Raises `DatabaseUnavailable`."""
        return await self._queue.length()

    async def _end_of(self, push_id: int, work: _Work) -> None:
        """Returns when the work on a push has ended, here or elsewhere."""
        while not work.ended.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if work.began else _LOOK_SECONDS):
                    await work.ended.wait()
            if not work.began:
                await self._look_for(push_id, work)

    async def _look_for(self, push_id: int, work: _Work) -> None:
        """Finds out whether a push is done elsewhere, or could be taken up by now."""
        try:
            waits = await self._queue.waits(push_id)
        except ModelyardError as error:
            log.debug("hooks.not_looked_up", push_id=push_id, error=error.message)
            return
        if work.began:
            return
        if waits is None:
            work.left = []
            work.ended.set()
        elif waits:
            self._poll.hint()

    async def _work_next(self) -> bool:
        held = await self._queue.claim([id_ for id_, work in self._works.items() if not work.began])
        if held is None:
            return False
        work = self._works.get(held.push.id)
        if work is None or work.began:
            work = self._works[held.push.id] = _Work(self._steps)
        work.began = True
        try:
            await self._work(held, work)
        except asyncio.CancelledError:
            with contextlib.suppress(LeaseLost, ModelyardError):
                await asyncio.shield(held.release())  # nobody need wait for the lease to end
            raise
        finally:
            work.ended.set()
            self._forget()
        return True

    async def _work(self, held: HeldPush, work: _Work) -> None:
        ended = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(held.keep(ended))
                await self._run_steps(held, work)
                ended.set()
        except* LeaseLost:
            log.warning("hooks.lease_lost", push_id=held.push.id)
        except* ModelyardError as errors:
            # The database is away: the lease will end, and somebody takes it up again.
            log.warning("hooks.postponed", push_id=held.push.id, error=str(errors.exceptions[0]))

    async def _run_steps(self, held: HeldPush, work: _Work) -> None:
        work.left = [step.name for step in self._steps if step.name not in held.done]
        failed = []
        # Taken up too often without an end: it kills whoever works on it.
        for step in self._steps if held.attempts <= _ATTEMPTS else ():
            if step.name in held.done:
                continue
            failpoints.reach(BEFORE_STEP)
            succeeded = await self._run_step(step, held.push, work.report)
            work.left.remove(step.name)
            if not succeeded:
                failed.append(step.name)
                continue
            failpoints.reach(AFTER_STEP)
            if failed or step is not self._steps[-1]:  # else the end of all says it
                await held.note(step.name, at_once=step.name not in self._stored_later)
        failpoints.reach(BEFORE_END)
        if failed and held.attempts < _ATTEMPTS:
            await held.postpone(_delay(held.attempts))
            return
        if given_up := failed or work.left:
            log.error("hooks.given_up", push_id=held.push.id, steps=given_up, attempts=held.attempts)
        await held.finish()

    async def _run_step(self, step: PostReceiveStep, push: ReceivedPush, report: Report) -> bool:
        """Whether it is done."""
        began = time.monotonic()
        try:
            await step.run(push, report)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # It cancelled itself: that must not end whoever works here.
            log.exception("hooks.step_fault", step=step.name, push_id=push.id)
            report.say(f"{step.name}: failed; it will be tried again")
            return False
        except RepositoryNotFound:
            log.info("hooks.repository_gone", step=step.name, push_id=push.id)
        except ModelyardError as error:
            log.warning(
                "hooks.step_failed", step=step.name, push_id=push.id, code=error.code, error=error.message
            )
            report.say(f"{step.name}: {error.message}; it will be tried again")
            return False
        except Exception:
            log.exception("hooks.step_fault", step=step.name, push_id=push.id)
            report.say(f"{step.name}: failed; it will be tried again")
            return False
        log.debug("hooks.step", step=step.name, push_id=push.id, seconds=round(time.monotonic() - began, 4))
        return True

    def _forget(self) -> None:
        ended = [id_ for id_, work in self._works.items() if work.ended.is_set()]
        for id_ in ended[:-_REPORTS_KEPT]:
            del self._works[id_]


def _delay(attempts: int) -> timedelta:
    """Twice as long after each attempt; spread out, because what fails often fails for many at once."""
    return min(_LONGEST_DELAY, _FIRST_DELAY * (1 << attempts - 1)) * random.uniform(0.5, 1)  # noqa: S311
