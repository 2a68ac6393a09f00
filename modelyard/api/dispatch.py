"""From a request to a handler and back: matching, decoding, admission, encoding.

Paths are matched on the bytes that the client sent, and each segment is decoded exactly once after that. So
an encoded slash never becomes a separator, and nothing is decoded twice.
"""

import re
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from hashlib import blake2b
from typing import Any, cast
from urllib.parse import parse_qsl, quote

import msgspec
from aiohttp import web
from aiohttp.web_urldispatcher import UrlMappingMatchInfo

from core.access import ActorKind, require_account_scope, require_site_admin, require_write_scope
from core.errors import AuthenticationRequired, BadRequest, NotFound, PayloadTooLarge, PermissionDenied
from core.names import parse_address
from core.repositories import RepositoryInfo
from modelyard.api.call import PREFIX, Call, NotModified
from modelyard.api.cursors import Cursors, Page, Window
from modelyard.api.errors import InvalidJson, InvalidRequest, UnsupportedMediaType
from modelyard.api.operation import Access, Operation
from modelyard.api.parameters import PLAIN, decode, where_and_why
from modelyard.authentication import actor_of
from modelyard.services import Services

_PLACEHOLDER = re.compile(r"\{(\w+)\}")


class Moved(Exception):
    """The repository is at another address now, and the actor may know; rendered as 307."""

    def __init__(self, repository: RepositoryInfo) -> None:
        self.repository = repository


class Endpoint(web.DynamicResource):
    """One path of the API with the methods it knows."""

    def __init__(self, path: str, tails: frozenset[str]) -> None:
        super().__init__(path)
        pattern = ""
        for index, part in enumerate(_PLACEHOLDER.split(path)):
            literal = index % 2 == 0
            pattern += re.escape(part) if literal else f"(?P<{part}>{'.+' if part in tails else '[^/]+'})"
        self._raw = re.compile(pattern, re.DOTALL)

    async def resolve(self, request: web.Request) -> tuple[UrlMappingMatchInfo | None, set[str]]:
        match = self._raw.fullmatch(request.rel_url.raw_path)
        if match is None:
            return None, set()
        route = self._routes.get(request.method, self._any_route)
        if route is None:
            return None, self._allowed_methods
        return UrlMappingMatchInfo(cast("dict[str, str]", match.groupdict()), route), self._allowed_methods


class Dispatcher:
    """Calls operations."""

    def __init__(self, services: Services, cursors: Cursors) -> None:
        self._services = services
        self._cursors = cursors

    def endpoints(self, operations: Iterable[Operation]) -> list[Endpoint]:
        """One resource per path; a method that a path does not know is answered with 405."""
        by_path: dict[str, list[Operation]] = defaultdict(list)
        for operation in operations:
            by_path[operation.path].append(operation)
        endpoints = []
        for path, known in by_path.items():
            tails = frozenset(name for item in known for name, rule in item.inputs.rules.items() if rule.tail)
            endpoint = Endpoint(PREFIX + path, tails)
            for operation in known:
                for method in ("GET", "HEAD") if operation.method == "GET" else (operation.method,):
                    endpoint.add_route(method, self._handler(operation))
            endpoint.add_route("*", _refuse_method(endpoint))
            endpoints.append(endpoint)
        return endpoints

    def _handler(self, operation: Operation) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            call = Call(request, self._services, await actor_of(request), operation)
            try:
                arguments = await self._arguments(call)
                result = await operation.handler(call, **arguments)
                return self._answer(call, result)
            except NotModified:
                return web.Response(status=304, headers=call.headers)
            except Moved as moved:
                location = call.repository_url(moved.repository) + _rest(request)
                return web.Response(status=307, headers={"Location": location})

        return handle

    async def _arguments(self, call: Call) -> dict[str, Any]:
        operation, inputs = call.operation, call.operation.inputs
        _admit(call)
        values = {**_path_values(call), **_query_values(call)}
        arguments: dict[str, Any] = {name: values[wire] for name, wire in inputs.arguments.items()}
        if inputs.window:
            name, key_type = inputs.window
            cursor = values["cursor"]
            after = None if cursor is None else self._cursors.read(operation.id, cursor, key_type)
            arguments[name] = Window(values["limit"], after)
        if inputs.repository:
            arguments[inputs.repository] = await _open(call, values)
        if inputs.body is not None:
            limit = self._services.settings.http.max_json_bytes
            arguments["body"] = await read_json(call.request, inputs.body, limit)
        return arguments

    def _answer(self, call: Call, result: Any) -> web.StreamResponse:
        if isinstance(result, web.StreamResponse):
            return result
        if result is None:
            return web.Response(status=call.operation.status, headers=call.headers)
        if isinstance(result, Page):
            if result.last is not None:
                cursor = self._cursors.write(call.operation.id, result.last)
                following = call.request.rel_url.update_query(cursor=cursor)
                call.headers["Link"] = f'<{call.base}{following}>; rel="next"'
            result = result.items
        body = msgspec.json.encode(result)
        if call.operation.method == "GET" and "ETag" not in call.headers:
            call.version(f'W/"{blake2b(body, digest_size=16).hexdigest()}"')
        return web.Response(
            body=body, status=call.operation.status, headers=call.headers, content_type="application/json"
        )


def _refuse_method(endpoint: Endpoint) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def refuse(request: web.Request) -> web.StreamResponse:
        allowed = sorted(route.method for route in endpoint if route.method != "*")
        raise web.HTTPMethodNotAllowed(request.method, allowed)

    return refuse


def _admit(call: Call) -> None:
    """Refuses early who may not call the operation whatever it is about."""
    actor = call.actor
    match call.operation.access:
        case Access.READER:
            if actor.kind is ActorKind.ANONYMOUS and not call.services.settings.auth.anonymous_read:
                raise AuthenticationRequired("log in first")
        case Access.USER:
            if actor.kind is ActorKind.ANONYMOUS:
                raise AuthenticationRequired("log in first")
            if actor.user_id is None:
                raise PermissionDenied("only a user can do this")
        case Access.ACCOUNT:
            require_account_scope(actor)
        case Access.WRITER:
            require_write_scope(actor)
        case Access.SITE_ADMIN:
            require_site_admin(actor)
        case Access.REPOSITORY_WRITE | Access.REPOSITORY_ADMIN:
            if actor.kind is ActorKind.ANONYMOUS:
                raise AuthenticationRequired("log in first")
        case Access.ANYONE | Access.REPOSITORY_READ:
            pass  # the second is decided when the repository is opened


def _path_values(call: Call) -> dict[str, Any]:
    inputs = call.operation.inputs
    decoded: dict[str, str | None] = {
        name: decode(value, inputs.rules.get(name, PLAIN)) for name, value in call.request.match_info.items()
    }
    try:
        return msgspec.structs.asdict(msgspec.convert(decoded, inputs.path, strict=False))
    except msgspec.ValidationError as error:
        # A segment that nothing can be called by names nothing.
        raise NotFound("there is nothing at this address") from error


def _query_values(call: Call) -> dict[str, Any]:
    inputs = call.operation.inputs
    pairs = parse_qsl(call.request.rel_url.raw_query_string, keep_blank_values=True, errors="surrogateescape")
    given: dict[str, str] = {}
    for name, value in pairs:
        place = f"$.{quote(name[:100], safe='', errors='surrogateescape')}"
        if name in given:
            raise InvalidRequest("query", place, "given more than once")
        raw = inputs.rules.get(name, PLAIN).raw
        if "\0" in value or not _is_text(name if raw else name + value):
            raise InvalidRequest("query", place, "not UTF-8 text")
        given[name] = value
    try:
        return msgspec.structs.asdict(msgspec.convert(given, inputs.query, strict=False))
    except msgspec.ValidationError as error:
        raise InvalidRequest("query", *where_and_why(error)) from error


def _is_text(value: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in value)


async def _open(call: Call, values: dict[str, Any]) -> RepositoryInfo:
    permission = call.operation.access.permission
    if permission is None:
        raise TypeError(f"{call.operation.id} opens a repository without a permission")
    address = parse_address(f"{values['type']}/{values['owner']}/{values['name']}")
    repository = await call.services.repositories.open(call.actor, address, permission)
    if repository.address != address:
        raise Moved(repository)
    return repository


def _rest(request: web.Request) -> str:
    """What follows the repository's address in the URL, as the client spelled it."""
    behind = request.rel_url.raw_path.removeprefix(PREFIX).split("/", 5)[5:]
    query = request.rel_url.raw_query_string
    return "".join(f"/{part}" for part in behind) + (f"?{query}" if query else "")


async def read_json(request: web.Request, kind: Any, limit: int) -> Any:
    """The body of the request as a `kind`.

    Raises:
        UnsupportedMediaType: it does not claim to be JSON.
        PayloadTooLarge: it has more than `limit` bytes.
        InvalidJson: it is not JSON.
        InvalidRequest: it does not fit.
    """
    if request.content_type != "application/json":
        raise UnsupportedMediaType("send the body as application/json")
    if (request.content_length or 0) > limit:
        raise PayloadTooLarge(f"a JSON body has at most {limit} bytes", limit=limit)
    data = bytearray()
    try:
        async for chunk in request.content.iter_any():
            data += chunk
            if len(data) > limit:
                raise PayloadTooLarge(f"a JSON body has at most {limit} bytes", limit=limit)
    except web.RequestPayloadError as error:
        raise BadRequest("the body does not match its headers") from error
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise InvalidRequest("body", *where_and_why(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidJson("the body is not valid JSON") from error
