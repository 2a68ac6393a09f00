"""The workers that deliver: what is due is claimed, signed, sent and recorded."""

import asyncio
import time
from collections import Counter

import structlog

from core import failpoints
from core.errors import ModelyardError
from core.polling import Poll
from core.settings import WebhooksSettings
from webhooks.claims import Claim, Claims
from webhooks.errors import SecretsUnreadable
from webhooks.outcomes import Answer, Outcome
from webhooks.sealing import SecretBox, signing
from webhooks.sending import Sender
from webhooks.signing import headers
from webhooks.streams import StreamKey

log = structlog.get_logger(__name__)

BEFORE_SEND = failpoints.declare("webhook.before-send", "the attempt is committed, nothing was sent")
AFTER_SEND = failpoints.declare("webhook.after-send", "the receiver answered, the outcome is not written")

# Seconds between the tries to record an outcome. When all fail, the delivery is tried again after its lease.
_PAUSES = (0.2, 1.0)


class Deliveries:
    """Delivers. Any number of workers may share the database."""

    def __init__(self, claims: Claims, sender: Sender, box: SecretBox, settings: WebhooksSettings) -> None:
        self._claims = claims
        self._sender = sender
        self._box = box
        self._settings = settings
        self._poll = Poll("webhook.delivery", settings.poll_seconds)
        # Attempts under way, by receiver.
        self._busy: Counter[str] = Counter()

    @property
    def under_way(self) -> int:
        """How many attempts are being made now."""
        return self._busy.total()

    def hint(self) -> None:
        """Something may be due: do not wait for the next look."""
        self._poll.hint()

    async def run_forever(self) -> None:
        """Until cancelled. Attempts that are under way then are recorded as interrupted, and tried again."""
        async with asyncio.TaskGroup() as group:
            await self._poll.forever(lambda: self._begin_due(group))

    async def run_due(self, stream: StreamKey | None = None) -> int:
        """Makes the attempts that are due now, and those that become due by them; returns how many.

        With `stream` only those of that one.
        """
        made = 0
        while True:
            async with asyncio.TaskGroup() as group:
                begun = await self._begin_due(group, stream)
            made += begun
            if not begun:
                return made

    async def _begin_due(self, group: asyncio.TaskGroup, stream: StreamKey | None = None) -> int:
        begun = 0
        while (free := self._settings.concurrent_deliveries - self.under_way) > 0:
            claims = await self._claims.claim(free, self._busy, stream)
            if not claims:
                break
            for claim in claims:
                self._busy[claim.receiver] += 1
                group.create_task(self._deliver(claim))
            begun += len(claims)
        return begun

    async def _deliver(self, claim: Claim) -> None:
        try:
            try:
                answer = await self._attempt(claim)
            except asyncio.CancelledError:
                await self._surely_record(claim, Answer(Outcome.INTERRUPTED, error="the server was stopped"))
                raise
            except Exception:
                # It counts as a failure, so that a delivery that cannot be sent does not block for ever.
                log.exception("webhook.attempt_fault", delivery_id=claim.delivery_id)
                answer = Answer(Outcome.FAILED, error="a fault in the server; its log has the details")
            failpoints.reach(AFTER_SEND)
            await self._surely_record(claim, answer)
        except Exception:
            log.exception("webhook.delivery_fault", delivery_id=claim.delivery_id)
        finally:
            self._busy[claim.receiver] -= 1
            self.hint()

    async def _attempt(self, claim: Claim) -> Answer:
        failpoints.reach(BEFORE_SEND)
        if time.monotonic() > claim.give_up_at:
            # So late that the lease might end before the attempt does: another worker may have it then.
            return Answer(Outcome.INTERRUPTED, error="the server was too busy to begin in time")
        at = time.time()
        try:
            secrets = signing(self._box.open(claim.webhook_id, claim.secrets), at)
        except SecretsUnreadable as error:
            return Answer(Outcome.UNSIGNED, error=error.message)
        body = claim.body.encode()
        signed = headers(
            secrets,
            delivery_id=claim.delivery_id,
            timestamp=int(at),
            event=claim.event,
            attempt=claim.number,
            body=body,
        )
        return await self._sender.send(claim.url, signed, body)

    async def _surely_record(self, claim: Claim, answer: Answer) -> None:
        """Records to the end, also when the worker is stopped meanwhile."""
        recording = asyncio.ensure_future(self._record(claim, answer))
        try:
            await asyncio.shield(recording)
        except asyncio.CancelledError:
            await asyncio.wait([recording])
            raise

    async def _record(self, claim: Claim, answer: Answer) -> None:
        due = await self._complete(claim, answer)
        log.info(
            "webhook.attempt",
            delivery_id=claim.delivery_id,
            webhook_id=claim.webhook_id,
            number=claim.number,
            outcome=answer.outcome.value,
            status=answer.status,
            milliseconds=answer.milliseconds,
        )
        if due is not None and due < self._settings.poll_seconds:
            asyncio.get_running_loop().call_later(due, self.hint)

    async def _complete(self, claim: Claim, answer: Answer) -> float | None:
        for pause in _PAUSES:
            try:
                return await self._claims.complete(claim, answer)
            except ModelyardError as error:
                log.warning("webhook.not_recorded", delivery_id=claim.delivery_id, error=error.message)
                await asyncio.sleep(pause)
        return await self._claims.complete(claim, answer)
