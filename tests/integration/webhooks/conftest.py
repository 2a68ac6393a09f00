"""A world of webhooks on each database engine, and a receiver."""

from collections.abc import AsyncIterator

import pytest

from core.database import Database
from tests.support.webhook_receiver import Receiver, running_receiver
from tests.support.webhook_world import WebhookWorld, webhook_world


@pytest.fixture
async def world(database: Database) -> AsyncIterator[WebhookWorld]:
    async with webhook_world(database) as made:
        yield made


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with running_receiver() as running:
        yield running
