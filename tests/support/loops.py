"""The event loops under which parts that come close to descriptors and signals are tried."""

import asyncio
from collections.abc import Callable

Loops = Callable[[], asyncio.AbstractEventLoop]
