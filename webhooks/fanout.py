"""From the outbox to deliveries: each event becomes a row for each subscription that is for it.

Why this keeps the order of the events of one repository, with any number of workers:

- Ids of events are given before their transactions commit, so a lower id may become visible after a higher
  one. Not within a repository: whoever emits about it holds the lock on its row until the commit, so its
  events become visible in the order of their ids.
- Workers do not skip events that another one has locked; they wait, lowest id first, and then see that those
  were handled. So when a worker writes the deliveries of an event, those of every earlier event of the same
  repository are committed, or written in this very transaction. `SKIP LOCKED` here would break that.
- Deliveries and `handled_at` are one transaction: no event is told twice, and none is lost.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import and_, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core import failpoints
from core.database import Database
from core.lookup import find_account
from core.models import Account, Delivery, OutboxEvent, Repository, Webhook, now
from core.opening import RepositoryInfo
from core.outbox import identity
from core.polling import Poll
from core.settings import WebhooksSettings
from webhooks.envelopes import body_of
from webhooks.events import matches
from webhooks.scopes import ScopeKind
from webhooks.streams import feed

BEFORE_COMMIT = failpoints.declare(
    "webhook.before-fanout", "the deliveries of events are written and not committed"
)

_EVENTS = 100
# A push has events now and others when it is understood; whoever pushes waits for neither.
_GATHER_SECONDS = 0.1
# Of bodies in one transaction, and those of one event more: others write too.
_CHARACTERS = 8 * 1024**2


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an event happened; `repository` as `outbox.identity` says, also when it is deleted."""

    repository: Mapping[str, str] | None = None
    owner_id: int | None = None

    @property
    def repository_id(self) -> str:
        return self.repository["id"] if self.repository else ""

    def hears(self, webhook: Webhook) -> bool:
        if webhook.repository_id is not None:
            return webhook.repository_id == self.repository_id
        return webhook.owner_id is None or webhook.owner_id == self.owner_id


_UNHANDLED = select(OutboxEvent).where(OutboxEvent.handled_at.is_(None)).order_by(OutboxEvent.id)
_WAITING = select(OutboxEvent.id).where(OutboxEvent.handled_at.is_(None)).limit(1)


class Fanout:
    """Writes deliveries. Any number of workers may run it."""

    def __init__(
        self, database: Database, settings: WebhooksSettings, on_deliveries: Callable[[], None]
    ) -> None:
        """`on_deliveries` is called whenever there may be something to deliver."""
        self._database = database
        self._settings = settings
        self._on_deliveries = on_deliveries
        self._poll = Poll("webhook.fanout", settings.poll_seconds, gather_seconds=_GATHER_SECONDS)

    def hint(self) -> None:
        """There may be events: do not wait for the next look."""
        self._poll.hint()

    async def run_forever(self) -> None:
        """Until cancelled: at every hint, and every `[webhooks] poll_seconds`."""
        await self._poll.forever(self.run_due)

    async def run_due(self) -> int:
        """Handles every event that waits; returns how many deliveries were written.

        Raises:
            DatabaseUnavailable: the rest waits for the next time.
        """
        written = 0
        while await self._database.rows(_WAITING, {}):
            written += await self._handle_some()
        return written

    async def _handle_some(self) -> int:
        async with self._database.transaction() as session:
            events = (await session.scalars(_UNHANDLED.limit(_EVENTS).with_for_update())).all()
            places = await _places(session, events)
            webhooks = await _webhooks(session, places.values())
            deliveries: list[Delivery] = []
            ids: list[int] = []
            written = 0
            for event in events:
                for delivery in self._deliveries(event, places[event.id], webhooks):
                    deliveries.append(delivery)
                    written += len(delivery.body)
                ids.append(event.id)
                if written > _CHARACTERS:
                    break
            session.add_all(deliveries)
            await session.flush()
            await feed(session, {(one.webhook_id, one.repository_id) for one in deliveries})
            await session.execute(update(OutboxEvent).where(OutboxEvent.id.in_(ids)).values(handled_at=now()))
            failpoints.reach(BEFORE_COMMIT)
        if deliveries:
            self._on_deliveries()
        return len(deliveries)

    def _deliveries(
        self, event: OutboxEvent, place: _Place, webhooks: Sequence[Webhook]
    ) -> Iterable[Delivery]:
        hearing = [one for one in webhooks if place.hears(one) and matches(one.events, event.name)]
        if not hearing:
            return
        body = body_of(event, place.repository, max_bytes=self._settings.max_payload_bytes)
        for webhook in hearing:
            yield Delivery(
                webhook_id=webhook.id,
                repository_id=place.repository_id,
                position=event.id,
                event=event.name,
                body=body,
            )


async def _places(session: AsyncSession, events: Sequence[OutboxEvent]) -> dict[int, _Place]:
    """By the id of the event."""
    ids = {event.repository_id for event in events if event.repository_id is not None}
    query = select(Repository, Account.name).join(Account, Account.id == Repository.owner_id)
    living = {
        repository.id: _Place(identity(RepositoryInfo.of(repository, owner)), repository.owner_id)
        for repository, owner in await session.execute(query.where(Repository.id.in_(ids)))
    }
    found: dict[int, _Place] = {}
    owners: dict[str, int | None] = {}
    for event in events:
        if event.repository_id in living:
            found[event.id] = living[event.repository_id]
            continue
        repository = event.payload.get("repository")
        owner = repository["owner"] if repository else _owner_named_by(event)
        if owner is not None and owner not in owners:
            account = await find_account(session, owner)
            owners[owner] = account.id if account else None
        found[event.id] = _Place(repository, owners.get(owner) if owner else None)
    return found


def _owner_named_by(event: OutboxEvent) -> str | None:
    return event.payload["target"] if event.payload.get("scope") == ScopeKind.OWNER else None


async def _webhooks(session: AsyncSession, places: Iterable[_Place]) -> Sequence[Webhook]:
    """The active subscriptions that may hear of these places, held until the end of the transaction."""
    places = list(places)
    scope = or_(
        Webhook.repository_id.in_({place.repository_id for place in places}),
        Webhook.owner_id.in_({place.owner_id for place in places if place.owner_id is not None}),
        and_(Webhook.repository_id.is_(None), Webhook.owner_id.is_(None)),
    )
    query = select(Webhook).where(Webhook.active, scope).order_by(Webhook.id)
    return (await session.scalars(query.with_for_update(read=True, key_share=True))).all()
