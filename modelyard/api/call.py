"""One call of one operation, as its handler sees it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from aiohttp import web

from core.access import Actor
from core.models import RepositoryType
from core.names import Address
from core.repositories import RepositoryInfo
from modelyard.api.operation import Operation
from modelyard.context import base_url
from modelyard.services import Services

PREFIX = "/api/v1"

PLURALS: Mapping[RepositoryType, str] = {RepositoryType.MODEL: "models", RepositoryType.DATASET: "datasets"}


class NotModified(Exception):
    """The client already has this answer; rendered as 304."""


@dataclass(slots=True)
class Call:
    """Who asks, over which request; `headers` are added to the answer."""

    request: web.Request
    services: Services
    actor: Actor
    operation: Operation
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def base(self) -> str:
        """The address of the server as this client knows it, without a slash at the end."""
        return base_url(self.request)

    def url(self, template: str, **segments: str | int) -> str:
        """The absolute URL of a path below `/api/v1`, with the segments encoded."""
        encoded = {name: quote(str(value), safe="") for name, value in segments.items()}
        return self.base + PREFIX + template.format_map(encoded)

    def created(self, template: str, **segments: str | int) -> None:
        """Says in `Location` where the thing that was made can be read."""
        self.headers["Location"] = self.url(template, **segments)

    def repository_url(self, repository: RepositoryInfo, rest: str = "", **segments: str | int) -> str:
        """The absolute URL of a repository, or of something below it."""
        return self.url("/repositories/{type}/{owner}/{name}" + rest, **place(repository.address), **segments)

    def version(self, etag: str, *, immutable: bool = False) -> None:
        """Names the version of the answer; `immutable` if this URL can never have another.

        Raises:
            NotModified: the client sent that version in `If-None-Match`.
        """
        self.headers["ETag"] = etag
        # An answer to somebody who is logged in must not be kept where others could read it.
        self.headers["Cache-Control"] = (
            "private, max-age=31536000, immutable" if immutable else "private, no-cache"
        )
        if matches(self.request, etag):
            raise NotModified


def place(address: Address) -> dict[str, str | int]:
    """The three segments that name a repository in a URL."""
    return {"type": PLURALS[address.type], "owner": address.owner, "name": address.name}


def matches(request: web.Request, etag: str) -> bool:
    """Whether `If-None-Match` names `etag`, by the weak comparison of RFC 9110."""
    given = request.headers.get("If-None-Match", "")
    wanted = etag.removeprefix("W/")
    return given.strip() == "*" or any(tag.strip().removeprefix("W/") == wanted for tag in given.split(","))
