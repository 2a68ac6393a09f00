"""From the Authorization header to an actor, once for each request, when somebody asks."""

import base64
import binascii
import re
from dataclasses import replace

from aiohttp import web

from core.access import ANONYMOUS, Actor
from core.errors import InvalidCredentials, TooManyRequests
from core.tokens import is_token
from modelyard.client import limit_key
from modelyard.context import ACTOR, FAILURE_LIMIT, SERVICES, client_of

_BEARER = re.compile(r"[A-Za-z0-9._~+/-]{1,4096}=*")
_MAX_USER = 256
_MAX_SECRET = 4096


async def actor_of(request: web.Request) -> Actor:
    """Who sends this request; `ANONYMOUS` with the address when there is no Authorization header.

    Raises:
        InvalidCredentials: the header is malformed, or proves nobody.
        TooManyRequests: too many failed logins from this address or to this account.
    """
    if ACTOR not in request:
        request[ACTOR] = await _authenticate(request)
    return request[ACTOR]


async def _authenticate(request: web.Request) -> Actor:
    address = client_of(request).address
    headers = request.headers.getall("Authorization", [])
    if not headers:
        return replace(ANONYMOUS, address=address)
    user, secret = parse_authorization(headers)
    credentials = request.config_dict[SERVICES].credentials
    if user is None:
        return await credentials.authenticate_token(secret, address)
    if is_token(secret):
        return await credentials.authenticate_basic(user, secret, address)
    # Only passwords can be guessed, and each guess costs a slow hash.
    failures, key = request.config_dict[FAILURE_LIMIT], limit_key(address)
    allowance = failures.look(key)
    if not allowance.allowed:
        raise TooManyRequests("too many failed logins from your address", retry_after=allowance.reset)
    try:
        return await credentials.authenticate_basic(user, secret, address)
    except InvalidCredentials:
        failures.take(key)
        raise


def parse_authorization(headers: list[str]) -> tuple[str | None, str]:
    """User name and secret; the name is None for a bearer token.

    Raises:
        InvalidCredentials: not exactly one header, another scheme, or malformed.
    """
    if len(headers) != 1:
        raise InvalidCredentials("the request has more than one Authorization header")
    scheme, _, value = headers[0].strip().partition(" ")
    match scheme.lower(), value.strip():
        case "bearer", token if _BEARER.fullmatch(token):
            return None, token
        case "basic", encoded:
            return _parse_basic(encoded)
        case "bearer", _:
            raise InvalidCredentials("the Authorization header is malformed")
        case _:
            raise InvalidCredentials("the Authorization header must be `Basic` or `Bearer`")


def _parse_basic(encoded: str) -> tuple[str, str]:
    """Credentials as RFC 7617 has them, in UTF-8."""
    try:
        user, separator, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        raise InvalidCredentials("the Authorization header is malformed") from None
    if not separator or len(user) > _MAX_USER or len(secret) > _MAX_SECRET or "\0" in user + secret:
        raise InvalidCredentials("the Authorization header is malformed")
    if not secret:
        raise InvalidCredentials("the password or token is missing")
    return user, secret
