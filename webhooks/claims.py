"""Attempts: claimed by one worker, written before the request leaves, and completed with what came of it."""

import random
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy import ColumnElement, Update, and_, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import defer

from core import failpoints
from core.access import SYSTEM
from core.audit import Action, record
from core.database import Database
from core.models import Account, Attempt, Delivery, DeliveryState, DeliveryStream, Repository, Webhook, now
from core.opening import RepositoryInfo
from core.outbox import EventName, emit, identity
from core.settings import WebhooksSettings
from webhooks.outcomes import Answer, Outcome
from webhooks.scopes import ScopeKind
from webhooks.streams import StreamKey, cancel_pending, first_unfinished, halt, lock_streams, lock_webhook

log = structlog.get_logger(__name__)

BEFORE_CLAIM = failpoints.declare("webhook.before-claim", "an attempt is written and not committed")
BEFORE_RECORD = failpoints.declare("webhook.before-record", "the outcome is written and not committed")

_JITTER = 0.25


@dataclass(frozen=True, slots=True)
class Claim:
    """An attempt that one worker may make, before `give_up_at` (of `time.monotonic`) or not at all."""

    webhook_id: int
    repository_id: str
    delivery_id: str
    number: int
    event: str
    body: str
    url: str
    receiver: str
    secrets: bytes
    leased_until: datetime
    give_up_at: float


class Claims:
    """The queue of attempts. Any number of workers may share it.

    A lease is longer than an attempt may take, and no attempt begins late in its lease. When a worker dies,
    its attempt stays without an outcome, and the next number is tried after the lease.
    """

    def __init__(self, database: Database, settings: WebhooksSettings) -> None:
        self._database = database
        self._settings = settings
        self._margin = settings.timeout_seconds + 2.0
        self._lease = timedelta(seconds=settings.timeout_seconds + self._margin)
        # Receivers share the places: one that is slow leaves three quarters to the others.
        self.per_receiver = max(1, settings.concurrent_deliveries // 4)

    async def claim(
        self, limit: int, busy: Mapping[str, int], stream: StreamKey | None = None
    ) -> list[Claim]:
        """The attempts that are due, at most `limit`, the longest due first; with `stream` only of that one.

        `busy` counts the attempts that this worker makes already, by receiver.
        """
        full = [receiver for receiver, count in busy.items() if count >= self.per_receiver]
        due = (
            select(DeliveryStream, Webhook)
            .join(Webhook, Webhook.id == DeliveryStream.webhook_id)
            .where(_is_due(), Webhook.active, Webhook.receiver.not_in(full))
            .order_by(DeliveryStream.due_at)
            .limit(limit)
        )
        if stream is not None:
            due = due.where(DeliveryStream.webhook_id == stream[0], DeliveryStream.repository_id == stream[1])
        async with self._database.read() as session:
            # On SQLite, a unit of work that finds nothing would make writers wait for nothing.
            if (await session.execute(due.limit(1))).first() is None:
                return []
        begun = time.monotonic()
        taken = Counter(busy)
        claims = []
        async with self._database.transaction() as session:
            rows = await session.execute(due.with_for_update(of=DeliveryStream, skip_locked=True))
            for row, webhook in rows.all():
                if taken[webhook.receiver] < self.per_receiver:
                    claim = await self._take(session, row, webhook, begun + self._margin)
                    if claim is not None:
                        taken[webhook.receiver] += 1
                        claims.append(claim)
            failpoints.reach(BEFORE_CLAIM)
        return claims

    async def _take(
        self, session: AsyncSession, stream: DeliveryStream, webhook: Webhook, give_up_at: float
    ) -> Claim | None:
        delivery = await session.scalar(first_unfinished(stream.webhook_id, stream.repository_id))
        if delivery is None:
            stream.due_at = None
            return None
        stream.leased_until = now() + self._lease
        delivery.attempts += 1
        session.add(Attempt(delivery_id=delivery.id, number=delivery.attempts))
        return Claim(
            webhook_id=webhook.id,
            repository_id=stream.repository_id,
            delivery_id=delivery.id,
            number=delivery.attempts,
            event=delivery.event,
            body=delivery.body,
            url=webhook.url,
            receiver=webhook.receiver,
            secrets=webhook.secrets,
            leased_until=stream.leased_until,
            give_up_at=give_up_at,
        )

    async def complete(self, claim: Claim, answer: Answer) -> float | None:
        """Records what came of an attempt, and what follows from it.

        Returns the seconds until the stream is due again; None when nothing waits in it, or nothing may be
        sent.
        """
        moment = now()
        async with self._database.transaction() as session:
            webhook = await lock_webhook(session, claim.webhook_id)
            if webhook is not None and self._ends(webhook, answer, moment):
                await lock_streams(session, webhook.id)
            key = (claim.webhook_id, claim.repository_id)
            stream = await session.get(DeliveryStream, key, with_for_update=True)
            delivery = await session.get(
                Delivery, claim.delivery_id, with_for_update=True, options=[defer(Delivery.body)]
            )
            if webhook is None or stream is None or delivery is None:
                return None  # deleted meanwhile
            await session.execute(_record_of(claim, answer))
            retry_at = await self._conclude(session, webhook, delivery, claim, answer, moment)
            if stream.leased_until == claim.leased_until:  # else another worker has it since
                stream.leased_until = None
                await session.flush()
                following = await session.scalar(first_unfinished(*key).with_only_columns(Delivery.id))
                if following is None or not webhook.active:
                    stream.due_at = None
                else:
                    # One that was asked for again may have come before this one.
                    stream.due_at = retry_at if retry_at and following == delivery.id else moment
            failpoints.reach(BEFORE_RECORD)
            return None if stream.due_at is None else max(0.0, (stream.due_at - moment).total_seconds())

    async def _conclude(
        self,
        session: AsyncSession,
        webhook: Webhook,
        delivery: Delivery,
        claim: Claim,
        answer: Answer,
        moment: datetime,
    ) -> datetime | None:
        """Changes the delivery and its subscription; returns when to try again."""
        # An attempt whose lease ended may answer after a later one, or after somebody cancelled.
        counts = delivery.finished_at is None and (
            delivery.attempts == claim.number or answer.outcome is Outcome.DELIVERED
        )
        if answer.outcome is Outcome.DELIVERED:
            webhook.failures, webhook.failing_since = 0, None
            if counts:
                _finish(delivery, DeliveryState.DELIVERED, moment)
            return None
        # What a former URL answered says nothing about the present one.
        if answer.outcome is Outcome.INTERRUPTED or not counts or claim.url != webhook.url:
            return None
        delivery.failures += 1
        delivery.failing_since = delivery.failing_since or moment
        webhook.failures += 1
        webhook.failing_since = webhook.failing_since or moment
        if answer.outcome is Outcome.GONE:
            await cancel_pending(session, webhook.id, at=moment)
            delivery.state, delivery.finished_at = DeliveryState.CANCELLED, moment
            await _pause(session, webhook, "the receiver answered that it is gone for good (410)")
            return None
        if self._ends(webhook, answer, moment):
            hours = self._settings.pause_after_hours
            await _pause(session, webhook, f"nothing could be delivered for {hours:g} hours: {_last(answer)}")
        deadline = delivery.failing_since + timedelta(hours=self._settings.retry_hours)
        if moment >= deadline:
            _finish(delivery, DeliveryState.DEAD, moment)
            return None
        return min(deadline, moment + self._pause_before_retry(delivery.failures, answer.retry_after))

    def _ends(self, webhook: Webhook, answer: Answer, moment: datetime) -> bool:
        """Whether this answer, if it counts, pauses the subscription."""
        if answer.outcome is Outcome.GONE:
            return True
        if answer.outcome in (Outcome.DELIVERED, Outcome.INTERRUPTED) or not webhook.active:
            return False
        since = webhook.failing_since or moment
        return moment - since >= timedelta(hours=self._settings.pause_after_hours)

    def _pause_before_retry(self, failures: int, retry_after: float | None) -> timedelta:
        longest = float(self._settings.max_retry_seconds)
        seconds = min(longest, self._settings.first_retry_seconds * 2.0 ** min(failures - 1, 40))
        seconds *= random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - spreads load
        return timedelta(seconds=max(seconds, min(retry_after or 0.0, longest)))


def _is_due() -> ColumnElement[bool]:
    moment = now()
    free = or_(DeliveryStream.leased_until.is_(None), DeliveryStream.leased_until < moment)
    return and_(DeliveryStream.due_at.is_not(None), DeliveryStream.due_at <= moment, free)


def _finish(delivery: Delivery, state: DeliveryState, at: datetime) -> None:
    delivery.state, delivery.finished_at = state, at


def _last(answer: Answer) -> str:
    """How the last attempt ended; not the text of its error, as redirects may repeat a secret of the URL."""
    status = "" if answer.status is None else f" with status {answer.status}"
    return f"the last attempt ended as {answer.outcome}{status}"


def _record_of(claim: Claim, answer: Answer) -> Update:
    """What completes the row of the attempt."""
    return (
        update(Attempt)
        .where(Attempt.delivery_id == claim.delivery_id, Attempt.number == claim.number)
        .values(
            outcome=answer.outcome.value,
            milliseconds=answer.milliseconds,
            status=answer.status,
            address=answer.address,
            error=answer.error,
            response_headers=dict(answer.headers) or None,
            response=answer.body,
        )
        .execution_options(synchronize_session=False)
    )


async def _pause(session: AsyncSession, webhook: Webhook, reason: str) -> None:
    """Pauses a locked subscription by the server's own decision, with notices to all who can hear of it."""
    await halt(session, webhook, reason)
    kind, target = ScopeKind.SERVER, "server"
    about: dict[str, object] = {}
    if webhook.repository_id is not None:
        query = select(Repository, Account.name).join(Account, Account.id == Repository.owner_id)
        repository, owner = (await session.execute(query.where(Repository.id == webhook.repository_id))).one()
        info = RepositoryInfo.of(repository, owner)
        kind, target, about = ScopeKind.REPOSITORY, info.path, {"repository": identity(info)}
    elif webhook.owner_id is not None:
        account = await session.get(Account, webhook.owner_id)
        assert account is not None, "subscriptions go with their owner"
        kind, target = ScopeKind.OWNER, account.name
    payload = {
        "webhook_id": webhook.id,
        "scope": kind.value,
        "target": target,
        "name": webhook.name,
        "receiver": webhook.receiver,
        "reason": reason,
        **about,
    }
    # Without a reference to the repository: who deletes one locks it before its subscriptions.
    emit(session, EventName.WEBHOOK_PAUSED, None, payload)
    record(session, SYSTEM, Action.WEBHOOK_PAUSE, target, id=webhook.id, reason=reason)
    log.warning("webhook.paused", webhook_id=webhook.id, target=target, reason=reason)
