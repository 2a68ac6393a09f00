"""`/events`: everything that webhooks can be told of."""

from typing import Any

import msgspec

from core.outbox import EventName
from modelyard.api.call import Call
from modelyard.api.cursors import Page, Window
from modelyard.api.operation import Access, Operations
from webhooks.events import EventKind, catalogue

operations = Operations("events", "Everything that webhooks can be told of: what the bodies look like.")


class EventView(msgspec.Struct):
    """An event; `schema` is the JSON Schema (draft 2020-12) of the body that receivers get, `example` one."""

    name: EventName
    version: int
    description: str
    schema: dict[str, Any]
    example: dict[str, Any]


def _view(kind: EventKind) -> EventView:
    return EventView(kind.name, kind.version, kind.description, kind.schema, kind.example)


@operations.add("GET", "/events", access=Access.ANYONE)
async def list_events(_call: Call, window: Window[str]) -> Page[EventView]:
    """List the events.

    By name. The version of an event grows when its body changes in a way that receivers could trip over;
    members may be added at any time.
    """
    return window.page_of_all(catalogue(), _view, lambda kind: kind.name.value)


@operations.add("GET", "/events/{event}", access=Access.ANYONE)
async def read_event(_call: Call, event: EventName) -> EventView:
    """Read an event."""
    return next(_view(kind) for kind in catalogue() if kind.name is event)
