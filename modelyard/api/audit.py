"""`/audit`: who changed which right or credential."""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from core.audit import AuditInfo
from modelyard.api.call import Call
from modelyard.api.cursors import Page, Window
from modelyard.api.operation import Access, Operations

operations = Operations("audit", "Who changed which right or credential.")


class AuditView(msgspec.Struct):
    """One change. `details` depends on the action, and never holds a secret."""

    id: int
    at: datetime
    actor: str
    action: str
    target: str
    details: dict[str, Any]


@operations.add("GET", "/audit", access=Access.SITE_ADMIN)
async def list_audit(
    call: Call,
    window: Window[int],
    action: Annotated[str, Meta(max_length=64, description="Only this action, such as `token:mint`.")]
    | None = None,
    target: Annotated[str, Meta(max_length=200, description="Only about this name or path.")] | None = None,
) -> Page[AuditView]:
    """List changes of rights and credentials.

    Newest first.
    """
    found = await call.services.audit.list(
        call.actor, action=action, target=target, limit=window.fetch, before=window.after
    )
    return window.page(found, _view, lambda entry: entry.id)


def _view(entry: AuditInfo) -> AuditView:
    return AuditView(entry.id, entry.at, entry.actor, entry.action, entry.target, entry.details)
