"""What can come of an attempt."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Outcome(StrEnum):
    """Stored with the attempt. An attempt without one is under way, or its process died with it."""

    DELIVERED = "delivered"  # status 2xx
    FAILED = "failed"  # any other status, or a fault in the server
    REDIRECTED = "redirected"  # status 3xx, which is never followed
    GONE = "gone"  # status 410: the receiver wants nothing any more
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"  # no such name, no connection, no TLS, or no HTTP
    REFUSED = "refused"  # the server does not send there
    UNSIGNED = "unsigned"  # the secrets cannot be opened
    INTERRUPTED = "interrupted"  # the server was stopped; nobody's failure


@dataclass(frozen=True, slots=True)
class Answer:
    """How one attempt ended.

    Attributes:
        address: the IP address that was connected to, or would have been.
        error: one line for whoever reads the log of attempts.
        headers, body: some of the response, and its first 4 KiB as text.
        retry_after: seconds that the receiver asked for, with status 429 or 503.
    """

    outcome: Outcome
    milliseconds: int = 0
    status: int | None = None
    address: str | None = None
    error: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | None = None
    retry_after: float | None = None
