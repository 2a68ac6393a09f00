"""The services of `core` on each database engine."""

import pytest

from core.database import Database
from tests.support.core_services import Core


@pytest.fixture
def core(database: Database) -> Core:
    """With default settings."""
    return Core.on(database)
