"""What is deleted after a while: handled events, finished deliveries with their attempts, idle streams."""

import asyncio
import random
from dataclasses import dataclass
from datetime import timedelta

import structlog
from sqlalchemy import delete, exists, select, tuple_

from core.database import Database
from core.errors import ModelyardError
from core.models import Delivery, DeliveryStream, OutboxEvent, now
from core.settings import WebhooksSettings

log = structlog.get_logger(__name__)

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
        """Until cancelled, every hour."""
        while True:
            # Spread out, so that workers do not ask in step.
            await asyncio.sleep(_HOURLY * random.uniform(0.8, 1.2))  # noqa: S311
            try:
                await self.run()
            except ModelyardError as error:
                log.warning("webhook.upkeep_failed", code=error.code, error=error.message)
            except Exception:
                # A fault here must not end the transfers beside it.
                log.exception("webhook.upkeep_fault")

    async def run(self) -> UpkeepReport:
        """Deletes what is older than `[webhooks] keep_days`. What is not finished stays."""
        oldest = now() - self._keep
        deliveries = events = 0
        while True:
            async with self._database.transaction() as session:
                finished = (
                    select(Delivery.id)
                    .where(Delivery.finished_at < oldest)
                    .order_by(Delivery.finished_at)
                    .limit(_ROWS)
                    .with_for_update(skip_locked=True)
                )
                ids = (await session.scalars(finished)).all()
                await session.execute(delete(Delivery).where(Delivery.id.in_(ids)))
            deliveries += len(ids)
            if len(ids) < _ROWS:
                break
        while True:
            async with self._database.transaction() as session:
                handled = (
                    select(OutboxEvent.id)
                    .where(OutboxEvent.handled_at < oldest)
                    .order_by(OutboxEvent.handled_at)
                    .limit(_ROWS)
                    .with_for_update(skip_locked=True)
                )
                numbers = (await session.scalars(handled)).all()
                await session.execute(delete(OutboxEvent).where(OutboxEvent.id.in_(numbers)))
            events += len(numbers)
            if len(numbers) < _ROWS:
                break
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
                break
        return UpkeepReport(events, deliveries)
