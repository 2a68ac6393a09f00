"""Who is at the other end of an HTTP connection, and by which address they called us.

Forwarding headers count only when the connection comes from a trusted proxy; otherwise anybody could choose
the address that back-off, rate limits and the log go by.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from aiohttp import web

from core.errors import SettingsError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_HOST = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?"
)
_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~-]+)+")
_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FAMILY = ("X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto")
_FORWARDING = (*_FAMILY, "Forwarded", "X-Real-IP", "Via")


@dataclass(frozen=True, slots=True)
class Client:
    """The caller of one request.

    Attributes:
        address: their IP address, `""` when there is none (a Unix socket).
        base_url: scheme, host, port and prefix by which they called, without a final slash.
        request_id: an id that a trusted proxy gave to the request.
        inside: they sit on this machine or among the trusted proxies, and came by no unknown proxy.
    """

    address: str
    base_url: str
    request_id: str | None
    inside: bool


class Proxies:
    """The networks whose forwarding headers are believed."""

    def __init__(self, trusted: Iterable[str]) -> None:
        """Takes addresses and networks. Raises `SettingsError` for anything else."""
        self._networks: list[Network] = []
        for text in trusted:
            try:
                self._networks.append(ip_network(text.strip(), strict=False))
            except ValueError as error:
                raise SettingsError(f"[http] trusted_proxies: {error}") from error

    def trusts(self, address: Address | None) -> bool:
        """Whether a connection from there may speak for others."""
        return address is not None and any(address in network for network in self._networks)

    def client(self, request: web.BaseRequest, public_url: str) -> Client:
        """Works out who sent the request; never fails, whatever the headers say."""
        peer = _peer(request)
        address, scheme, host, prefix = peer, request.url.scheme, request.headers.get("Host", ""), ""
        believed = self.trusts(peer)
        if believed:
            forwarded = _Forwarded.of(request)
            address = self._origin(peer, forwarded.addresses)
            scheme = forwarded.scheme or scheme
            host = forwarded.host or host
            prefix = forwarded.prefix
        if not _HOST.fullmatch(host):
            host = _own_host(request)
        strange = not believed and any(name in request.headers for name in _FORWARDING)
        request_id = request.headers.get("X-Request-Id", "")
        return Client(
            address=str(address) if address else "",
            base_url=public_url.rstrip("/") or f"{scheme}://{host}{prefix}",
            request_id=request_id if believed and _REQUEST_ID.fullmatch(request_id) else None,
            inside=not strange and address is not None and (address.is_loopback or self.trusts(address)),
        )

    def _origin(self, peer: Address | None, hops: list[Address | None]) -> Address | None:
        """The last hop that is no trusted proxy; what stands before it may be made up."""
        origin = peer
        for hop in reversed(hops):
            if hop is None:
                break
            origin = hop
            if not self.trusts(hop):
                break
        return origin


@dataclass(frozen=True, slots=True)
class _Forwarded:
    addresses: list[Address | None]
    scheme: str
    host: str
    prefix: str

    @classmethod
    def of(cls, request: web.BaseRequest) -> "_Forwarded":
        """Reads the X-Forwarded-* family, or `Forwarded` (RFC 7239) when none of it is there.

        Of a list that several proxies added to, the last entry is from the one that we trust.
        """
        if not any(name in request.headers for name in _FAMILY):
            hops = request.forwarded
            last = hops[-1] if hops else {}
            addresses = [_parse(hop.get("for", "")) for hop in hops]
            return cls(addresses, _scheme(last.get("proto", "")), last.get("host", ""), "")
        host = _last(request, "X-Forwarded-Host")
        port = _last(request, "X-Forwarded-Port")
        if host and port.isdigit() and not re.search(r":\d+$", host):
            host = f"{host}:{port}"
        prefix = _last(request, "X-Forwarded-Prefix").rstrip("/")
        return cls(
            [_parse(hop) for hop in _all(request, "X-Forwarded-For").split(",") if hop.strip()],
            _scheme(_last(request, "X-Forwarded-Proto")),
            host,
            prefix if _PREFIX.fullmatch(prefix) else "",
        )


def _all(request: web.BaseRequest, name: str) -> str:
    return ",".join(request.headers.getall(name, []))


def _last(request: web.BaseRequest, name: str) -> str:
    return _all(request, name).rpartition(",")[2].strip()


def _scheme(text: str) -> str:
    return text.lower() if text.lower() in {"http", "https"} else ""


def _peer(request: web.BaseRequest) -> Address | None:
    peername = request.transport.get_extra_info("peername") if request.transport else None
    return _parse(peername[0]) if isinstance(peername, tuple) else None


def _own_host(request: web.BaseRequest) -> str:
    name = request.transport.get_extra_info("sockname") if request.transport else None
    if not isinstance(name, tuple):
        return "localhost"
    return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"


def _parse(text: str) -> Address | None:
    """An address, with or without port, brackets, quotes and IPv6 zone; None when it is none."""
    text = text.strip().strip('"')
    if found := re.fullmatch(r"\[([^\]]+)\](?::\d+)?", text) or re.fullmatch(r"([\d.]+):\d+", text):
        text = found[1]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def limit_key(address: str) -> str:
    """What the addresses of one subscriber share: IPv6 hands out at least a /64 to each."""
    parsed = _parse(address)
    return str(ip_network((parsed, 64), strict=False)) if isinstance(parsed, IPv6Address) else address
