"""Which IP addresses a server may be talked into connecting to.

The networks are listed here, and not asked of `ipaddress`, because its answers differ between versions of
Python. They come from the IANA registries of special-purpose addresses; the words are what a refusal says.
"""

from collections.abc import Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import TypeAlias

from core.errors import SettingsError

IPAddress: TypeAlias = IPv4Address | IPv6Address
IPNetwork: TypeAlias = IPv4Network | IPv6Network

_SPECIAL_4 = {
    "0.0.0.0/8": "unspecified",
    "10.0.0.0/8": "private",
    "100.64.0.0/10": "shared (carrier-grade NAT)",
    "127.0.0.0/8": "loopback",
    "168.63.129.16/32": "a cloud's metadata service",
    "169.254.0.0/16": "link-local",
    "172.16.0.0/12": "private",
    "192.0.0.0/24": "reserved",
    "192.0.2.0/24": "for documentation",
    "192.88.99.0/24": "reserved",
    "192.168.0.0/16": "private",
    "198.18.0.0/15": "for benchmarks",
    "198.51.100.0/24": "for documentation",
    "203.0.113.0/24": "for documentation",
    "224.0.0.0/4": "multicast",
    "240.0.0.0/4": "reserved",
}
# More special ones first. All that is left outside 2000::/3 is no global unicast.
_SPECIAL_6 = {
    "::/128": "unspecified",
    "::1/128": "loopback",
    "2001::/23": "reserved (Teredo and others)",
    "2001:db8::/32": "for documentation",
    "3fff::/20": "for documentation",
    "fc00::/7": "private",
    "fe80::/10": "link-local",
    "fec0::/10": "site-local",
    "ff00::/8": "multicast",
}
_NETWORKS_4 = [(IPv4Network(text), words) for text, words in _SPECIAL_4.items()]
_NETWORKS_6 = [(IPv6Network(text), words) for text, words in _SPECIAL_6.items()]
_UNICAST_6 = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
_LOW_32 = 0xFFFF_FFFF


def parse_networks(texts: Sequence[str]) -> tuple[IPNetwork, ...]:
    """The networks of `[webhooks] allowed_networks`.

    Raises:
        SettingsError: one is no network in CIDR notation.
    """
    try:
        return tuple(ip_network(text) for text in texts)
    except ValueError as error:
        raise SettingsError(f"[webhooks] allowed_networks: {error}") from error


def plain(address: IPAddress) -> IPAddress:
    """The IPv4 address behind `::ffff:a.b.c.d`, to which the system would connect; others as they are."""
    return getattr(address, "ipv4_mapped", None) or address


def is_in(address: IPAddress, networks: Sequence[IPNetwork]) -> bool:
    return any(address.version == network.version and address in network for network in networks)


def objection(address: IPAddress) -> str | None:
    """Why nothing is sent to this address, in words that follow "is"; None for global unicast."""
    address = plain(address)
    if isinstance(address, IPv4Address):
        return next((words for network, words in _NETWORKS_4 if address in network), None)
    inside = _translated(address)
    if inside is not None:
        words = objection(inside)
        return f"a way to {inside}, which is {words}" if words else None
    special = next((words for network, words in _NETWORKS_6 if address in network), None)
    if special is None and address not in _UNICAST_6:
        return "reserved"
    return special


def parse_ip(text: str) -> IPAddress | None:
    """The address, written in the one form that every system reads the same way; None for all else."""
    try:
        return ip_address(text)
    except ValueError:
        return None


def _translated(address: IPv6Address) -> IPv4Address | None:
    """Where NAT64 or 6to4 would carry what is sent to the address."""
    if address in _NAT64:
        return IPv4Address(int(address) & _LOW_32)
    return address.sixtofour
