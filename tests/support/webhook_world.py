"""Webhooks on one database, with a user and a repository, without a server around them."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from core.access import Actor
from core.database import Database
from core.models import Attempt, Delivery
from core.names import parse_address
from core.opening import RepositoryInfo
from core.outbox import EventName, emit
from core.settings import Settings, WebhooksSettings
from gitserver.publish import lock_repository
from modelyard.notifying import Notifying, open_notifying
from tests.support.core_services import Core
from tests.support.webhook_receiver import Receiver
from webhooks.egress import Resolve
from webhooks.scopes import WebhookScope

KEY = b"k" * 32
LOOPBACK = "127.0.0.0/8"


def webhook_settings(**changes: Any) -> WebhooksSettings:
    """Impatient, and allowed to send to this machine, unless changed."""
    impatient: dict[str, Any] = {
        "allowed_networks": (LOOPBACK,),
        "first_retry_seconds": 0.01,
        "max_retry_seconds": 1,
        "timeout_seconds": 5.0,
        "poll_seconds": 0.05,
    }
    return WebhooksSettings(**{**impatient, **changes})


@dataclass(slots=True)
class WebhookWorld:
    """`ann` owns `ann/net`."""

    core: Core
    notifying: Notifying
    ann: Actor
    repository: RepositoryInfo

    @property
    def database(self) -> Database:
        return self.core.database

    @property
    def scope(self) -> WebhookScope:
        """Of the repository."""
        return WebhookScope(repository=self.repository.address)

    async def subscribe(
        self, receiver: Receiver | str, *events: str, scope: WebhookScope | None = None
    ) -> tuple[int, str]:
        """A subscription of ann's: its id and its secret."""
        url = receiver if isinstance(receiver, str) else receiver.url
        info, secret = await self.notifying.subscriptions.create(
            self.ann, scope or self.scope, url, events or ("*",)
        )
        return info.id, secret

    async def happen(
        self,
        number: int,
        name: EventName = EventName.PUSH,
        repository: RepositoryInfo | None = None,
        **members: Any,
    ) -> None:
        """An event about a repository, as a push makes one; `number` tells it from others."""
        repository_id = (repository or self.repository).id
        payload: Mapping[str, Any] = {"push_id": number, "updates": [], "actor": "ann", **members}
        async with self.database.transaction() as session:
            await lock_repository(session, repository_id)
            emit(session, name, repository_id, payload)

    async def tell(self) -> int:
        """Fans out what happened, and makes every attempt that is due; returns how many."""
        await self.notifying.fanout.run_due()
        return await self.notifying.deliveries.run_due()

    async def deliveries(self) -> list[Delivery]:
        """Every delivery, in the order of their events."""
        async with self.database.read() as session:
            return list(await session.scalars(select(Delivery).order_by(Delivery.position, Delivery.id)))

    async def attempts(self) -> list[Attempt]:
        """Every attempt, in the order in which they began."""
        async with self.database.read() as session:
            return list(await session.scalars(select(Attempt).order_by(Attempt.id)))


@asynccontextmanager
async def webhook_world(
    database: Database, *, resolve: Resolve | None = None, **changes: Any
) -> AsyncIterator[WebhookWorld]:
    """A world with the settings of `webhook_settings`."""
    core = Core.on(database)
    ann = await core.user("ann")
    repository = await core.repository("ann/net")
    # What was told so far was told to nobody.
    async with open_notifying(
        Settings(webhooks=webhook_settings(**changes)), KEY, database, resolve=resolve
    ) as notifying:
        await notifying.fanout.run_due()
        yield WebhookWorld(core, notifying, ann, repository)


def address_of(path: str) -> WebhookScope:
    """The scope of a repository by its path."""
    return WebhookScope(repository=parse_address(path))
