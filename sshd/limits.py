"""How many connections may be open at once, in all and from one address."""

from collections import Counter
from ipaddress import IPv6Address, ip_address


def normal_address(text: str) -> str:
    """One spelling per IP address: an IPv4 client of an IPv6 socket is still an IPv4 client."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return text
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)


class ConnectionLimits:
    """Counts the open connections of this process."""

    def __init__(self, total: int, per_address: int) -> None:
        self._total = total
        self._per_address = per_address
        self._open: Counter[str] = Counter()

    def admit(self, address: str) -> bool:
        """Counts one more connection, if there is room. Every admission needs its `release`."""
        source = _source(address)
        if self._open.total() >= self._total or self._open[source] >= self._per_address:
            return False
        self._open[source] += 1
        return True

    def release(self, address: str) -> None:
        """Takes back one admission."""
        source = _source(address)
        self._open[source] -= 1
        if not self._open[source]:
            del self._open[source]


def _source(address: str) -> str:
    """Who counts as one: an IPv4 address, or the /64 that an IPv6 customer is given."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    return parsed.exploded[:19] if isinstance(parsed, IPv6Address) else address
