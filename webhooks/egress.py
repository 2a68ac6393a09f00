"""The way out: names are resolved once, judged, and connected to by exactly the addresses that were judged.

A name may lead to a public address when it is looked at and to a private one when it is used (DNS rebinding).
So the connection is made with what was judged; the name serves for TLS and the Host header only.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

from aiohttp import ClientSession, DummyCookieJar, TCPConnector
from aiohttp.abc import AbstractResolver, ResolveResult

from webhooks.addresses import IPAddress, parse_ip, plain
from webhooks.destinations import Destination, Destinations
from webhooks.errors import DestinationUnknown

# Looks up a name; raises OSError.
Resolve: TypeAlias = Callable[[str, int], Awaitable[list[str]]]

# Threads that a slow name server can keep busy; the rest of the program has others.
_LOOKUPS = 16
# A name may have more addresses; the first ones are tried.
_MAX_ADDRESSES = 8


class Egress:
    """Opens connections to receivers and to nothing else. Close it when done."""

    def __init__(self, destinations: Destinations, *, resolve: Resolve | None = None) -> None:
        """`resolve` is the system's resolver unless given."""
        self._destinations = destinations
        self._threads = ThreadPoolExecutor(_LOOKUPS, "webhook-names")
        self._resolve = resolve or self._ask_system
        self._context: ssl.SSLContext | None = None

    async def find(self, url: str) -> tuple[Destination, list[IPAddress]]:
        """Where a delivery to `url` may go now; every address was judged.

        Raises:
            DestinationRefused: nowhere.
            DestinationUnknown: the name has no address.
        """
        destination = self._destinations.check(url)
        if destination.literal is not None:
            return destination, [destination.literal]
        try:
            found = await self._resolve(destination.host, destination.port)
        except OSError as error:
            reason = error.strerror or "no answer"
            raise DestinationUnknown(f"{destination.host} cannot be resolved: {reason}") from error
        parsed = (parse_ip(text) for text in found)
        addresses = list(dict.fromkeys(plain(address) for address in parsed if address is not None))
        if not addresses:
            raise DestinationUnknown(f"{destination.host} has no address")
        self._destinations.judge(destination, addresses)
        return destination, addresses[:_MAX_ADDRESSES]

    async def session(self, address: IPAddress) -> ClientSession:
        """A client for one request, which can connect to this address only, whatever name it asks for.

        No proxies, cookies or credentials of the environment; the connection is not used again.
        """
        if self._context is None:  # what the system trusts; reading it takes a while
            self._context = await asyncio.to_thread(ssl.create_default_context)
        connector = TCPConnector(
            resolver=_Pinned(address), use_dns_cache=False, force_close=True, ssl=self._context
        )
        return ClientSession(
            connector=connector, trust_env=False, cookie_jar=DummyCookieJar(), auto_decompress=False
        )

    async def close(self) -> None:
        """Waits for no name server."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _ask_system(self, host: str, port: int) -> list[str]:
        loop = asyncio.get_running_loop()
        rows = await loop.run_in_executor(
            self._threads, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
        return [str(row[4][0]) for row in rows]


class _Pinned(AbstractResolver):
    """Knows one address."""

    def __init__(self, address: IPAddress) -> None:
        self._address = address

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=str(self._address),
                port=port,
                family=socket.AF_INET if self._address.version == 4 else socket.AF_INET6,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
        ]

    async def close(self) -> None:
        """Nothing is held."""
