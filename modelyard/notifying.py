"""The part of the composition root that tells subscribers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from core.database import Database
from core.settings import Settings
from webhooks.claims import Claims
from webhooks.delivery import Deliveries
from webhooks.destinations import Destinations
from webhooks.egress import Egress, Resolve
from webhooks.fanout import Fanout
from webhooks.history import History
from webhooks.sealing import SecretBox
from webhooks.sending import Sender
from webhooks.subscriptions import Subscriptions
from webhooks.upkeep import Upkeep


@dataclass(frozen=True, slots=True)
class Notifying:
    """What the faces, the command line and the workers need for webhooks."""

    subscriptions: Subscriptions
    history: History
    fanout: Fanout
    deliveries: Deliveries
    upkeep: Upkeep

    async def run_forever(self) -> None:
        """Until cancelled: events become deliveries, and those are delivered."""
        async with asyncio.TaskGroup() as group:
            for work in (self.fanout, self.deliveries, self.upkeep):
                group.create_task(work.run_forever())


@asynccontextmanager
async def open_notifying(
    settings: Settings, sealing_key: bytes, database: Database, *, resolve: Resolve | None = None
) -> AsyncIterator[Notifying]:
    """Closes what it made. `resolve` looks up names instead of the system.

    Raises `SettingsError`: `[webhooks] allowed_networks` holds what is no network.
    """
    destinations = Destinations(settings.webhooks)
    egress = Egress(destinations, resolve=resolve)
    box = SecretBox(sealing_key)
    sender = Sender(egress, settings.webhooks.timeout_seconds)
    deliveries = Deliveries(Claims(database, settings.webhooks), sender, box, settings.webhooks)
    fanout = Fanout(database, settings.webhooks, deliveries.hint)
    database.event_listeners.append(fanout.hint)
    try:
        yield Notifying(
            subscriptions=Subscriptions(
                database, box, destinations, settings.webhooks, settings.auth, deliveries.hint
            ),
            history=History(database, settings.auth, deliveries.hint),
            fanout=fanout,
            deliveries=deliveries,
            upkeep=Upkeep(database, settings.webhooks),
        )
    finally:
        database.event_listeners.remove(fanout.hint)
        await egress.close()
