"""One request of one attempt: what is sent, what is read of the answer, and what is made of it."""

import asyncio
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from io import BytesIO

from aiohttp import ClientConnectorError, ClientError, ClientResponse, ClientResponseError, ClientTimeout
from yarl import URL

from webhooks.addresses import IPAddress
from webhooks.destinations import Destination
from webhooks.egress import Egress
from webhooks.errors import DestinationRefused, DestinationUnknown
from webhooks.outcomes import Answer, Outcome

_MAX_BODY = 4096
_MAX_VALUE = 300
_KEPT_HEADERS = ("Content-Type", "Date", "Location", "Retry-After", "Server", "X-Request-Id")
# The whole attempt has one time limit, see `Sender.send`.
_UNLIMITED = ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None)


class Sender:
    """Sends deliveries. Nothing that a receiver does raises, waits for longer, or fills the memory."""

    def __init__(self, egress: Egress, timeout_seconds: float) -> None:
        self._egress = egress
        self._seconds = timeout_seconds

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Makes one request, in `timeout_seconds` from looking up the name to the last byte that is read."""
        attempt = _Attempt(self._egress, time.monotonic())
        try:
            async with asyncio.timeout(self._seconds):
                return await attempt.run(url, headers, body)
        except TimeoutError:
            return attempt.ended(Outcome.TIMEOUT, f"no answer within {self._seconds:g} seconds")
        except DestinationRefused as error:
            return attempt.ended(Outcome.REFUSED, error.message)
        except DestinationUnknown as error:
            return attempt.ended(Outcome.UNREACHABLE, error.message)
        except ClientResponseError as error:
            # Its text ends with the URL, which may hold a secret.
            return attempt.ended(Outcome.UNREACHABLE, _one_line(f"this is no HTTP: {error.message}"))
        except (ClientError, OSError, ValueError) as error:
            return attempt.ended(Outcome.UNREACHABLE, _one_line(str(error) or type(error).__name__))


class _Attempt:
    """What is known of an attempt so far, so that a time-out can tell."""

    def __init__(self, egress: Egress, started: float) -> None:
        self._egress = egress
        self._started = started
        self._address: IPAddress | None = None
        self._response: ClientResponse | None = None
        self._read = b""

    async def run(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        destination, addresses = await self._egress.find(url)
        for number, self._address in enumerate(addresses, start=1):
            try:
                return await self._request(destination, self._address, headers, body)
            except ClientConnectorError:
                # Nothing was sent: the name's next address may be one that this machine can reach.
                if number == len(addresses):
                    raise
        raise AssertionError("a name that was found has an address")

    async def _request(
        self, destination: Destination, address: IPAddress, headers: Mapping[str, str], body: bytes
    ) -> Answer:
        async with (
            await self._egress.session(address) as session,
            session.post(
                URL(destination.url, encoded=True),
                data=BytesIO(body),
                headers={"Accept-Encoding": "identity", **headers},
                allow_redirects=False,
                timeout=_UNLIMITED,
            ) as response,
        ):
            self._response = response
            try:
                while len(self._read) < _MAX_BODY and (more := await response.content.read(_MAX_BODY)):
                    self._read = (self._read + more)[:_MAX_BODY]
            except ClientError:
                pass  # the status has come, and decides
            response.close()
            return self._answered(response)

    def ended(self, outcome: Outcome, error: str) -> Answer:
        if self._response is not None:
            # Only the rest of the body is missing.
            return self._answered(self._response)
        address = str(self._address) if self._address else None
        return Answer(outcome, self._milliseconds, address=address, error=error)

    def _answered(self, response: ClientResponse) -> Answer:
        outcome, error = _judged(response)
        kept = {
            name: response.headers[name][:_MAX_VALUE] for name in _KEPT_HEADERS if name in response.headers
        }
        return Answer(
            outcome,
            self._milliseconds,
            status=response.status,
            address=str(self._address),
            error=error,
            headers={name: _storable(value) for name, value in kept.items()},
            body=_storable(self._read.decode("utf-8", "replace")),
            retry_after=_retry_after(response) if response.status in (429, 503) else None,
        )

    @property
    def _milliseconds(self) -> int:
        return round(1000 * (time.monotonic() - self._started))


def _judged(response: ClientResponse) -> tuple[Outcome, str | None]:
    status = response.status
    if 200 <= status < 300:
        return Outcome.DELIVERED, None
    if status == 410:
        return Outcome.GONE, "the receiver says that it is gone for good (410)"
    if 300 <= status < 400:
        target = _one_line(response.headers.get("Location", "nowhere"))
        return Outcome.REDIRECTED, f"redirects are not followed; this one leads to {target}"
    return Outcome.FAILED, f"the receiver answered {status}"


def _retry_after(response: ClientResponse) -> float | None:
    """Seconds from now, from either form of the header (RFC 9110, 10.2.3)."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # the latter for years and zones that no clock has
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def _storable(text: str) -> str:
    """Headers may hold lone surrogates, and bodies NULs: no database takes those."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _one_line(text: str) -> str:
    """What a receiver sent, made fit for logs and terminals."""
    line = " ".join(text.split())[:_MAX_VALUE]
    return "".join(character if character.isprintable() else "\ufffd" for character in line)
