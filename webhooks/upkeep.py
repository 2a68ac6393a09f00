"""What is deleted after a while: handled events, finished deliveries with their attempts, idle streams."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, exists, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute

from core.database import Database
from core.models import Delivery, DeliveryStream, OutboxEvent, now
from core.polling import Poll
from core.settings import WebhooksSettings

_HOURLY = 3600.0
# In one transaction: others write too.
_ROWS = 500


@dataclass(frozen=True, slots=True)
class UpkeepReport:
    """How many rows went."""

    events: int = 0
    deliveries: int = 0


class Upkeep:
    """Any number of workers may run it."""

    def __init__(self, database: Database, settings: WebhooksSettings) -> None:
        self._database = database
        self._keep = timedelta(days=settings.keep_days)

    async def run_forever(self) -> None:
        """At once, and then every hour until cancelled."""
        await Poll("webhook.upkeep", _HOURLY).forever(self.run)

    async def run(self) -> UpkeepReport:
        """Deletes what is older than `[webhooks] keep_days`. What is not finished stays."""
        deliveries = await self._delete_old(Delivery, Delivery.finished_at)
        events = await self._delete_old(OutboxEvent, OutboxEvent.handled_at)
        await self._delete_idle_streams()
        return UpkeepReport(events, deliveries)

    async def _delete_old(
        self,
        table: type[Delivery] | type[OutboxEvent],
        ended_at: InstrumentedAttribute[datetime | None],
    ) -> int:
        gone, oldest = 0, now() - self._keep
        while True:
            async with self._database.transaction() as session:
                old = (
                    select(table.id)
                    .where(ended_at < oldest)
                    .order_by(ended_at)
                    .limit(_ROWS)
                    .with_for_update(skip_locked=True)
                )
                ids = (await session.scalars(old)).all()
                await session.execute(delete(table).where(table.id.in_(ids)))
            gone += len(ids)
            if len(ids) < _ROWS:
                return gone

    async def _delete_idle_streams(self) -> None:
        key = tuple_(DeliveryStream.webhook_id, DeliveryStream.repository_id)
        anything = exists().where(
            Delivery.webhook_id == DeliveryStream.webhook_id,
            Delivery.repository_id == DeliveryStream.repository_id,
        )
        while True:
            async with self._database.transaction() as session:
                idle = (
                    select(DeliveryStream.webhook_id, DeliveryStream.repository_id)
                    .where(DeliveryStream.due_at.is_(None), ~anything)
                    .limit(_ROWS)
                    .with_for_update(skip_locked=True)
                )
                keys = [(one.webhook_id, one.repository_id) for one in await session.execute(idle)]
                await session.execute(delete(DeliveryStream).where(key.in_(keys)))
            if len(keys) < _ROWS:
                return
