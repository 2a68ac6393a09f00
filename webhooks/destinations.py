"""Where deliveries may go: URLs of receivers, read strictly, and the judgement on their addresses.

Nothing here touches the network. What cannot be decided from the URL alone is decided at each attempt, on the
addresses that the name has then: see `webhooks.egress`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from core.settings import WebhooksSettings
from webhooks.addresses import IPAddress, is_in, objection, parse_ip, parse_networks, plain
from webhooks.errors import DestinationRefused

_MAX_URL = 2000
_VISIBLE = re.compile(r"[!-~]+")
_AUTHORITY = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(:[0-9]{1,5})?")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
# As in the URL standard: a host whose last label is a number is an IPv4 address in one of its many spellings.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Destination:
    """A URL that was read.

    Attributes:
        url: what is requested; the host in lower case, without the fragment that there is none of.
        host: a name, or the text of `literal`.
        literal: the address, where the URL has one instead of a name.
        receiver: host and port, as in `hooks.example.org:443`.
    """

    url: str
    scheme: str
    host: str
    port: int
    literal: IPAddress | None

    @property
    def receiver(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Destinations:
    """The policy of `[webhooks] allowed_networks` and `allow_http`."""

    def __init__(self, settings: WebhooksSettings) -> None:
        """Raises `SettingsError`: a network is none."""
        self._allowed = parse_networks(settings.allowed_networks)
        self._allow_http = settings.allow_http

    def check(self, url: str) -> Destination:
        """Reads a URL and refuses what its text alone forbids.

        Raises:
            DestinationRefused: it is no URL that we send to, or names an address that is not allowed.
        """
        destination = parse(url)
        if destination.literal is not None:
            self.judge(destination, [destination.literal])
        elif destination.scheme == "http" and not self._allow_http and not self._allowed:
            raise DestinationRefused(_TLS)
        elif _is_local(destination.host) and not any(network.is_loopback for network in self._allowed):
            raise DestinationRefused(f"{destination.host} is loopback, and no receiver may be there")
        return destination

    def judge(self, destination: Destination, addresses: Sequence[IPAddress]) -> None:
        """Returns if every one of the addresses is allowed: one bad address refuses the whole name.

        Raises:
            DestinationRefused: says which and why.
        """
        for address in addresses:
            words = None if self._is_allowed(address) else objection(address)
            if words is not None:
                what = (
                    f"{address} is"
                    if destination.literal
                    else f"{destination.host} leads to {address}, which is"
                )
                raise DestinationRefused(f"{what} {words} and not in [webhooks] allowed_networks")
            if destination.scheme == "http" and not self._allow_http and not self._is_allowed(address):
                raise DestinationRefused(_TLS)

    def _is_allowed(self, address: IPAddress) -> bool:
        return is_in(plain(address), self._allowed)


_TLS = "receivers need https; [webhooks] allow_http or allowed_networks can allow http"


def parse(url: str) -> Destination:
    """Reads the URL of a receiver, more strictly than clients of the web do.

    Raises:
        DestinationRefused: it is not `https://` or `http://` with a host, in ASCII; it has a user, a password
            or a fragment; or the host is an IPv4 address in a form that systems read differently.
    """
    if len(url) > _MAX_URL or not _VISIBLE.fullmatch(url) or set(url) & set('\\#"<>^`{|}'):
        raise DestinationRefused(
            f"a URL has at most {_MAX_URL} characters of ASCII, no spaces, backslashes or fragments"
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise DestinationRefused(f"this is no URL: {error}") from error
    if parts.scheme not in _PORTS:
        raise DestinationRefused("a URL of a receiver begins with https:// or http://")
    if "@" in parts.netloc:
        raise DestinationRefused(
            "a URL with a user or a password would leak them; put a secret into the path"
        )
    if not _AUTHORITY.fullmatch(parts.netloc) or port == 0:
        raise DestinationRefused("behind the host comes nothing but a port, from 1 to 65535")
    port = port if port is not None else _PORTS[parts.scheme]
    host, literal = _parse_host(parts.hostname or "", bracketed=parts.netloc.startswith("["))
    authority = f"[{host}]" if ":" in host else host
    if port != _PORTS[parts.scheme]:
        authority += f":{port}"
    query = f"?{parts.query}" if parts.query else ""
    return Destination(
        f"{parts.scheme}://{authority}{parts.path or '/'}{query}", parts.scheme, host, port, literal
    )


def _is_local(host: str) -> bool:
    return host == "localhost" or host.endswith(".localhost")


def _parse_host(host: str, *, bracketed: bool) -> tuple[str, IPAddress | None]:
    address = parse_ip(host)
    if bracketed:
        if address is None or address.version != 6 or "%" in host:
            raise DestinationRefused("this is no IPv6 address")
        # `[::ffff:10.0.0.1]` is 10.0.0.1, and is written so from here on.
        return str(plain(address)), plain(address)
    if address is not None:
        return host, address
    labels = host.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        raise DestinationRefused(
            "this IPv4 address is not written as four decimal numbers without leading zeros"
        )
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise DestinationRefused("this is no host name; international names are written as xn--…")
    return host, None
