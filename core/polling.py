"""Background work that is looked for now and then, and at once when somebody knows of some."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from core.errors import ModelyardError

log = structlog.get_logger(__name__)


class Poll:
    """One loop that looks for work. Its failures are logged and do not end it."""

    def __init__(self, name: str, seconds: float) -> None:
        """Looks about every `seconds`; the log calls what is wrong `<name>.postponed` or `<name>.fault`."""
        self._postponed, self._fault = f"{name}.postponed", f"{name}.fault"
        self._seconds = seconds
        self._hinted = asyncio.Event()

    def hint(self) -> None:
        """There may be work: do not wait for the next look. Call it in the event loop."""
        self._hinted.set()

    async def forever(self, look: Callable[[], Awaitable[object]]) -> None:
        """Looks at once, and then again and again until cancelled. One caller at a time.

        A hint that comes during a look makes another one follow, as it may be about what that one missed.
        """
        while True:
            self._hinted.clear()
            try:
                await look()
            except ModelyardError as error:
                log.warning(self._postponed, code=error.code, error=error.message)
            except Exception:
                # A fault here must not end the transfers beside it.
                log.exception(self._fault)
            with suppress(TimeoutError):
                # Spread out, so that workers do not ask in step.
                async with asyncio.timeout(self._seconds * random.uniform(0.8, 1.2)):  # noqa: S311
                    await self._hinted.wait()
