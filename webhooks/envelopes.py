"""The body of a delivery: made once per event, stored, and signed and sent byte for byte."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from core.models import OutboxEvent
from webhooks.events import Envelope, RepositoryOfEvent, version_of

# Members of an outbox payload that the envelope has a place of its own for.
_OURS = ("actor", "repository")


def body_of(
    event: OutboxEvent, repository: Mapping[str, str] | None, *, max_bytes: int, test: bool = False
) -> str:
    """JSON, in `max_bytes` unless what cannot be left out is longer; `repository` as `outbox.identity` says.

    Where everything does not fit, the largest members of `data` are left out and `truncated` says so.
    """
    data = {key: value for key, value in event.payload.items() if key not in _OURS}
    envelope = Envelope(
        id=event_id(event.id),
        type=event.name,
        version=version_of(event.name),
        timestamp=rfc3339(event.created_at),
        repository=RepositoryOfEvent(**repository) if repository else None,
        actor=event.payload.get("actor"),
        data=data,
        test=test,
    )
    body = _json(envelope)
    if len(body) > max_bytes:
        envelope.truncated = True
        envelope.data = _smaller(data, len(body) - max_bytes)
        body = _json(envelope)
    return body.decode()


def event_id(position: int) -> str:
    """The public id of an outbox event."""
    return f"evt_{position}"


def rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _smaller(data: Mapping[str, Any], excess: int) -> dict[str, Any]:
    sizes = {key: len(_json({key: value})) for key, value in data.items()}
    kept = dict(data)
    for key in sorted(sizes, key=sizes.__getitem__, reverse=True):
        if excess <= 0:
            break
        del kept[key]
        excess -= sizes[key]
    return kept


def _json(value: object) -> bytes:
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        # Surrogates, which stand for what is not UTF-8. An event that could not be told would hold up all.
        return json.dumps(msgspec.to_builtins(value), ensure_ascii=False).encode("utf-8", "replace")
