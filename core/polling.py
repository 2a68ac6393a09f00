"""Background work that is looked for now and then, and at once when somebody knows of some."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from core.errors import ModelyardError

log = structlog.get_logger(__name__)


class Poll:
    """A loop that looks for work, or several beside each other. Failures are logged and do not end it."""

    def __init__(self, name: str, seconds: float, *, loops: int = 1, gather_seconds: float = 0) -> None:
        """Looks about every `seconds`; the log calls what is wrong `<name>.postponed` or `<name>.fault`.

        `loops` is how many call `forever` at a time. A hint is answered after `gather_seconds`, together with
        those that come meanwhile.
        """
        self._postponed, self._fault = f"{name}.postponed", f"{name}.fault"
        self._seconds = seconds
        self._gather_seconds = gather_seconds
        self._gathering = False
        self._hints: asyncio.Queue[None] = asyncio.Queue(loops)

    def hint(self) -> None:
        """There may be work for one loop: do not wait for the next look. Call it in the event loop."""
        if not self._gather_seconds:
            self._answer()
        elif not self._gathering:
            self._gathering = True
            asyncio.get_running_loop().call_later(self._gather_seconds, self._answer)

    def _answer(self) -> None:
        self._gathering = False
        with suppress(asyncio.QueueFull):
            self._hints.put_nowait(None)

    async def forever(self, look: Callable[[], Awaitable[object]]) -> None:
        """Looks at once, and then again and again until cancelled.

        A hint that comes while every loop looks makes another look follow, as it may be about what those
        missed.
        """
        while True:
            # A look that nobody hinted at answers a hint as well.
            with suppress(asyncio.QueueEmpty):
                self._hints.get_nowait()
            hinted = True
            while hinted:
                await self._look(look)
                hinted = await self._hinted()

    async def _look(self, look: Callable[[], Awaitable[object]]) -> None:
        try:
            await look()
        except ModelyardError as error:
            log.warning(self._postponed, code=error.code, error=error.message)
        except Exception:
            # A fault here must not end the transfers beside it.
            log.exception(self._fault)

    async def _hinted(self) -> bool:
        """Waits for the next look; False: nobody hinted at it."""
        # Spread out, so that workers do not ask in step.
        seconds = self._seconds * random.uniform(0.8, 1.2)  # noqa: S311
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hints.get()
                return True
        return False
