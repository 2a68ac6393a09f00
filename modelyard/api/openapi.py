"""The OpenAPI 3.1 document, made from the operations."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, get_args

import msgspec

from core.errors import (
    AuthenticationRequired,
    BadRequest,
    InvalidCredentials,
    InvalidCursor,
    ModelyardError,
    NotFound,
    PayloadTooLarge,
    PermissionDenied,
    RepositoryNotFound,
    RevisionNotFound,
    TooManyRequests,
    Unavailable,
)
from gitserver.revisions import AmbiguousRevision
from modelyard.api.errors import InvalidJson, InvalidRequest, UnsupportedMediaType
from modelyard.api.operation import Access, Operation, Operations

_REF = "#/components/schemas/{name}"
_OPEN = frozenset({Access.ANYONE, Access.READER, Access.REPOSITORY_READ})

_HEADERS: dict[str, dict[str, Any]] = {
    "Allow": {"description": "The methods that this path knows.", "schema": {"type": "string"}},
    "ETag": {"description": "The version of the answer, for `If-None-Match`.", "schema": {"type": "string"}},
    "Link": {
        "description": 'The next page: `<URL>; rel="next"`. Absent on the last one.',
        "schema": {"type": "string"},
    },
    "Location": {"description": "An absolute URL.", "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}},
    "WWW-Authenticate": {"description": "How to log in.", "schema": {"type": "string"}},
}


class Problem(msgspec.Struct):
    """A refusal, after RFC 9457. `code` is stable; a particular code may bring members of its own."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    instance: str
    request_id: str


def errors_of(operation: Operation) -> list[type[ModelyardError]]:
    """Every refusal that the operation may answer with, in the order of their statuses."""
    inputs = operation.inputs
    found = {AuthenticationRequired, InvalidCredentials, TooManyRequests, Unavailable, InvalidRequest}
    if operation.access not in _OPEN:
        found.add(PermissionDenied)
    if inputs.path.__struct_fields__:
        found.add(NotFound)
    if inputs.repository:
        found.add(RepositoryNotFound)
    if inputs.window:
        found.add(InvalidCursor)
    if inputs.body is not None:
        found |= {BadRequest, InvalidJson, PayloadTooLarge, UnsupportedMediaType}
    if RevisionNotFound in operation.errors:
        found.add(AmbiguousRevision)
    return sorted(found | set(operation.errors), key=lambda error: (error.status, error.code))


def document(resources: Sequence[Operations], version: str) -> dict[str, Any]:
    """The whole document, but for `servers`, which depends on who reads it."""
    operations = [operation for resource in resources for operation in resource]
    schemas = _Schemas(operations)
    paths: dict[str, dict[str, Any]] = defaultdict(dict)
    for operation in operations:
        described = _operation(operation, schemas)
        paths[operation.path][operation.method.lower()] = described
        if operation.streams and operation.method == "GET":
            paths[operation.path]["head"] = _head(described)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Modelyard",
            "version": version,
            "description": "The REST API of a Modelyard server.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": [{"name": resource.tag, "description": resource.description} for resource in resources],
        "paths": dict(paths),
        "components": {
            "schemas": schemas.components,
            "headers": _HEADERS,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "An access token."},
                "basic": {
                    "type": "http",
                    "scheme": "basic",
                    "description": "A user and password, or any user and an access token as the password.",
                },
            },
        },
    }


class _Schemas:
    """JSON schemas of everything that the operations speak of."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        self._types: list[Any] = [Problem]
        self._places: dict[tuple[str, str], int] = {}
        for operation in operations:
            inputs = operation.inputs
            for struct in (inputs.path, inputs.query):
                for item in msgspec.structs.fields(struct):
                    self._note(operation, item.encode_name, item.type)
            self._note(operation, "(body)", inputs.body)
            self._note(
                operation, "(answer)", get_args(operation.answer)[0] if operation.pages else operation.answer
            )
        self._schemas, self.components = msgspec.json.schema_components(self._types, ref_template=_REF)

    def _note(self, operation: Operation, place: str, kind: Any) -> None:
        if kind is not None:
            self._places[operation.id, place] = len(self._types)
            self._types.append(kind)

    def of(self, operation: Operation, place: str) -> dict[str, Any]:
        return dict(self._schemas[self._places[operation.id, place]])

    @property
    def problem(self) -> dict[str, Any]:
        return self._schemas[0]


def _operation(operation: Operation, schemas: _Schemas) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": "\n\n".join(filter(None, [operation.description, f"For {operation.access.words}."])),
        "parameters": _parameters(operation, schemas),
        "responses": _responses(operation, schemas),
        "security": [*([{}] if operation.access in _OPEN else []), {"bearer": []}, {"basic": []}],
    }
    if operation.inputs.body is not None:
        described["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schemas.of(operation, "(body)")}},
        }
    return described


def _parameters(operation: Operation, schemas: _Schemas) -> list[dict[str, Any]]:
    parameters = []
    for place, struct in (("path", operation.inputs.path), ("query", operation.inputs.query)):
        for item in msgspec.structs.fields(struct):
            schema = _without_null(schemas.of(operation, item.encode_name))
            described = {
                "name": item.encode_name,
                "in": place,
                "required": item.required,
                "schema": schema,
            }
            if "description" in schema:
                described["description"] = schema.pop("description")
            if item.default is not msgspec.NODEFAULT and item.default is not None:
                schema["default"] = item.default
            parameters.append(described)
    if operation.method == "GET":
        parameters.append(
            {
                "name": "If-None-Match",
                "in": "header",
                "required": False,
                "description": "An `ETag` that the client has; the same version is answered with 304.",
                "schema": {"type": "string"},
            }
        )
    return parameters


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """What a parameter looks like when it is there: null is only how its absence reaches the handler."""
    wanted, *rest = schema.get("anyOf", [schema])
    return dict(wanted) if rest in ([], [{"type": "null"}]) else schema


def _responses(operation: Operation, schemas: _Schemas) -> dict[str, Any]:
    responses: dict[str, Any] = {str(operation.status): _success(operation, schemas)}
    for status, meaning in operation.statuses.items():
        responses[str(status)] = {"description": meaning, "content": _streams(operation)}
    if operation.method == "GET":
        responses["304"] = {"description": "The client has this version.", "headers": _headers("ETag")}
    if operation.inputs.repository:
        responses["307"] = {
            "description": "The repository is at another address now.",
            "headers": _headers("Location"),
        }
    by_status: dict[int, list[str]] = defaultdict(list)
    for error in errors_of(operation):
        by_status[error.status].append(error.code)
    for status, codes in by_status.items():
        responses[str(status)] = _problem(status, codes, schemas)
    return dict(sorted(responses.items()))


def _success(operation: Operation, schemas: _Schemas) -> dict[str, Any]:
    described: dict[str, Any] = {"description": HTTPStatus(operation.status).phrase}
    if operation.streams:
        described["content"] = _streams(operation)
    elif operation.answer is not None:
        schema = schemas.of(operation, "(answer)")
        if operation.pages:
            schema = {"type": "array", "items": schema}
        described["content"] = {"application/json": {"schema": schema}}
    names = [
        *(["ETag"] if operation.method == "GET" else []),
        *(["Link"] if operation.pages else []),
        *(["Location"] if operation.status == HTTPStatus.CREATED else []),
    ]
    if names:
        described["headers"] = _headers(*names)
    return described


def _streams(operation: Operation) -> dict[str, Any]:
    return {media: {"schema": {}} for media in operation.produces}


def _problem(status: int, codes: Sequence[str], schemas: _Schemas) -> dict[str, Any]:
    described: dict[str, Any] = {
        "description": f"{HTTPStatus(status).phrase}: " + ", ".join(f"`{code}`" for code in codes) + ".",
        "content": {"application/problem+json": {"schema": schemas.problem}},
    }
    extra = {401: "WWW-Authenticate", 429: "Retry-After"}.get(status)
    if extra:
        described["headers"] = _headers(extra)
    return described


def _headers(*names: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _head(described: Mapping[str, Any]) -> dict[str, Any]:
    """The same operation without bodies."""
    return {
        **described,
        "operationId": f"{described['operationId']}_head",
        "responses": {
            status: {key: value for key, value in answer.items() if key != "content"}
            for status, answer in described["responses"].items()
        },
    }
