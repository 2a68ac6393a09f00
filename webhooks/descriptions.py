"""What is told of a subscription."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from core.models import Webhook
from webhooks.scopes import Held, ScopeKind
from webhooks.sealing import StoredSecret


@dataclass(frozen=True, slots=True)
class SecretInfo:
    """A secret that signs, without its text; `expires_at` None is until it is dropped."""

    created_at: datetime
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class WebhookInfo:
    """A subscription as it was when it was read.

    Attributes:
        target: a repository's path, an account's name, or `server`.
        receiver: host and port of `url`.
        paused_reason: why the server made it inactive; None when somebody did.
        failures, failing_since: attempts that failed since the last one that did not.
        secrets: those that sign, the newest first; none when they cannot be read with this server's key.
    """

    id: int
    scope: ScopeKind
    target: str
    name: str
    url: str
    receiver: str
    events: tuple[str, ...]
    active: bool
    paused_reason: str | None
    failures: int
    failing_since: datetime | None
    secrets: tuple[SecretInfo, ...]
    created_by: str
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, webhook: Webhook, held: Held, secrets: Iterable[StoredSecret]) -> Self:
        at = time.time()
        return cls(
            id=webhook.id,
            scope=held.kind,
            target=held.target,
            name=webhook.name,
            url=webhook.url,
            receiver=webhook.receiver,
            events=tuple(webhook.events),
            active=webhook.active,
            paused_reason=webhook.paused_reason,
            failures=webhook.failures,
            failing_since=webhook.failing_since,
            secrets=tuple(_shown(one) for one in secrets if one.signs(at)),
            created_by=webhook.created_by,
            created_at=webhook.created_at,
            updated_at=webhook.updated_at,
        )


def _shown(secret: StoredSecret) -> SecretInfo:
    expires = None if secret.expires is None else datetime.fromtimestamp(secret.expires, UTC)
    return SecretInfo(datetime.fromtimestamp(secret.created, UTC), expires)
