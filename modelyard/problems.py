"""How a refusal looks over HTTP: a problem document (RFC 9457) for programs, one line of text for git."""

from http import HTTPStatus

import msgspec
from aiohttp import web

from core.errors import AuthenticationRequired, ModelyardError, RangeNotSatisfiable, TooManyRequests
from modelyard.context import REQUEST_ID

CHALLENGE = 'Basic realm="Modelyard", charset="UTF-8"'
PROBLEM_TYPE = "application/problem+json"

_CODES = {
    400: "bad_request",
    403: "permission_denied",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "payload_too_large",
    415: "unsupported_media_type",
    417: "expectation_failed",
}


def render(request: web.Request, error: ModelyardError) -> web.Response:
    """The answer for a refusal."""
    headers: dict[str, str] = {}
    if isinstance(error, AuthenticationRequired):
        headers["WWW-Authenticate"] = CHALLENGE
    if isinstance(error, TooManyRequests):
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, RangeNotSatisfiable) and "size" in error.fields:
        headers["Content-Range"] = f"bytes */{error.fields['size']}"
    return _answer(request, error.status, error.code, error.message, error.fields, headers)


def render_http(request: web.Request, error: web.HTTPException) -> web.Response:
    """The answer for an error that aiohttp itself raised: no route, wrong method, body too large."""
    allowed = sorted(error.allowed_methods) if isinstance(error, web.HTTPMethodNotAllowed) else []
    headers = {"Allow": ", ".join(allowed)} if allowed else {}
    message = {
        404: "there is nothing at this address",
        405: f"{request.method} is not possible here; try {', '.join(allowed)}",
        413: "the request body is too large",
    }.get(error.status, error.reason)
    return _answer(request, error.status, _CODES.get(error.status, "http_error"), message, {}, headers)


def render_unexpected(request: web.Request) -> web.Response:
    """The answer for a bug: nothing but the id under which the log tells more."""
    message = f"something went wrong here; the log has it under request {request[REQUEST_ID]}"
    return _answer(request, 500, "internal_error", message, {}, {})


def _answer(
    request: web.Request,
    status: int,
    code: str,
    message: str,
    fields: dict[str, object],
    headers: dict[str, str],
) -> web.Response:
    if not _wants_problem(request):
        return web.Response(status=status, headers=headers, text=f"{message}\n")
    body = {
        **fields,
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": message,
        "code": code,
        "instance": request.rel_url.raw_path,
        "request_id": request[REQUEST_ID],
    }
    return web.Response(
        status=status,
        headers=headers,
        body=msgspec.json.encode(body, enc_hook=str),
        content_type=PROBLEM_TYPE,
    )


def _wants_problem(request: web.Request) -> bool:
    # git shows a text body to its user line by line, behind `remote: `.
    return request.path.startswith("/api/") or "json" in request.headers.get("Accept", "")
