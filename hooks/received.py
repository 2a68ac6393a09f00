"""A push that was accepted, and what every step of the post-receive pipeline is."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, runtime_checkable

from core.models import Transport
from core.repositories import RepositoryInfo
from gitserver.remarks import Remarks
from gitserver.updates import RefUpdate


@dataclass(frozen=True, slots=True)
class ReceivedPush:
    """An acknowledged push; `repository` is as it is now, `updates` are as they were then.

    Attributes:
        id: of the push row; ids of one repository ascend in the order in which its refs changed.
        actor: the account name at that time; `actor_id` is None once the account is gone.
        updates: only those that were written; `peeled` is not known any more.
        by_run: pushed with a token that was made for runs.
    """

    id: int
    repository: RepositoryInfo
    actor: str
    actor_id: int | None
    transport: Transport
    updates: tuple[RefUpdate, ...]
    options: tuple[str, ...]
    by_run: bool
    created_at: datetime


class Report:
    """Lines for whoever pushed, shown behind `remote: ` if they still wait; otherwise nobody sees them."""

    def __init__(self) -> None:
        self._remarks = Remarks()

    def say(self, line: str) -> None:
        """Adds one line, made safe for any terminal; beyond 400, lines are only counted."""
        self._remarks.add(line)

    @property
    def lines(self) -> tuple[str, ...]:
        """What was said so far."""
        return self._remarks.lines


@runtime_checkable
class PostReceiveStep(Protocol):
    """Something that is done about every accepted push.

    `name` is stored with the push as long as other steps of it are open, so it never changes.
    """

    @property
    def name(self) -> str: ...

    async def run(self, push: ReceivedPush, report: Report) -> None:
        """Does it. At least once: after a crash it may come again, so it must not matter how often it ran.

        Pushes of one repository come one after the other, in their order unless one is being retried. The
        refs may have moved on and the repository may be gone, which `RepositoryNotFound` may say: the step is
        done then. Any other exception has it tried again later, a `ModelyardError` with its message shown.
        """
        ...
