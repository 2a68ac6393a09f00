"""`/api/v1` as a whole: every resource, the document that describes them, and 404 for the rest."""

import asyncio
import hmac
from functools import cache
from importlib.metadata import version

import msgspec
from aiohttp import web

from core.errors import NotFound
from modelyard.api import (
    archives,
    audit,
    branch_rules,
    branches,
    commits,
    deliveries,
    events,
    keys,
    lfs,
    metadata,
    new_commits,
    organisations,
    repositories,
    rules,
    sharing,
    tags,
    tensors,
    tokens,
    trees,
    users,
    webhooks,
)
from modelyard.api.call import PREFIX
from modelyard.api.cursors import Cursors
from modelyard.api.dispatch import Dispatcher
from modelyard.api.openapi import document
from modelyard.api.operation import Operations
from modelyard.context import base_url
from modelyard.services import Services

RESOURCES: tuple[Operations, ...] = (
    users.operations,
    keys.operations,
    tokens.operations,
    organisations.operations,
    repositories.operations,
    sharing.operations,
    branch_rules.operations,
    branches.operations,
    tags.operations,
    trees.operations,
    commits.operations,
    new_commits.operations,
    archives.operations,
    lfs.operations,
    metadata.operations,
    tensors.operations,
    rules.operations,
    events.operations,
    webhooks.operations,
    deliveries.operations,
    audit.operations,
)


@cache
def openapi() -> dict[str, object]:
    """The OpenAPI document of this version, without `servers`; made when it is asked for."""
    return document(RESOURCES, version("modelyard"))


def add_routes(app: web.Application, services: Services) -> None:
    """Adds the REST API to `app`, whose middleware renders errors and logs people in."""
    dispatcher = Dispatcher(services, Cursors(hmac.digest(services.sealing_key, b"api cursors", "sha256")))
    for endpoint in dispatcher.endpoints(operation for resource in RESOURCES for operation in resource):
        app.router.register_resource(endpoint)

    async def read_openapi(request: web.Request) -> web.Response:
        servers = [{"url": base_url(request) + PREFIX}]
        body = msgspec.json.encode({**await asyncio.to_thread(openapi), "servers": servers})
        return web.Response(body=body, content_type="application/json")

    app.router.add_get(f"{PREFIX}/openapi.json", read_openapi)
    app.router.add_route("*", "/api/{rest:.*}", _nothing)


async def _nothing(_request: web.Request) -> web.StreamResponse:
    raise NotFound("there is nothing at this address")
