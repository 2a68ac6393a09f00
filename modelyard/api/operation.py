"""Operations: each is declared once, by a decorated handler, and route, checks and document come from it.

The handler's signature is the declaration. Its first parameter is the `Call`; of the others,

* one whose name stands in the path template is that segment,
* `body` is the JSON body, a `msgspec.Struct`,
* one of type `RepositoryInfo` is the repository at `{type}/{owner}/{name}`, opened with the permission that
  the operation's `access` names,
* one of type `Window[K]` is the query parameters `limit` and `cursor` of a list ordered by a key of type K,
* every other is a query parameter; a trailing underscore is not part of its name.

It returns a Struct (JSON), a `Page` (a JSON array and a `Link` header), None (204), or a response it made.
The first line of its docstring is the summary, the rest the description.
"""

import inspect
import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from aiohttp import web

from core.access import Permission
from core.errors import ModelyardError
from core.repositories import RepositoryInfo
from modelyard.api.cursors import DEFAULT_LIMIT, MAX_LIMIT, Page, Window
from modelyard.api.parameters import PLAIN, Name, RepositoryName, Rule, TypePlural

Handler = TypeVar("Handler", bound=Callable[..., Awaitable[Any]])

REPOSITORY = "/repositories/{type}/{owner}/{name}"

_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_REPOSITORY_FIELDS: list[tuple[str, Any]] = [("type", TypePlural), ("owner", Name), ("name", RepositoryName)]
_WINDOW_FIELDS: list[tuple[str, Any, Any]] = [
    (
        "limit",
        Annotated[int, msgspec.Meta(ge=1, le=MAX_LIMIT, description="How many items at most.")],
        DEFAULT_LIMIT,
    ),
    (
        "cursor",
        Annotated[str, msgspec.Meta(max_length=4000, description="Where to go on, from a `Link` header.")]
        | None,
        None,
    ),
]


class Access(Enum):
    """Who may call an operation. The value is how the document says it."""

    ANYONE = "anyone"
    READER = "anyone, unless the server refuses anonymous readers"
    USER = "a logged-in user"
    ACCOUNT = "a user, by password or with a token of scope `admin`"
    WRITER = "a user, by password or with a token of scope `write` or `admin`"
    SITE_ADMIN = "an administrator of the server"
    REPOSITORY_READ = Permission.READ
    REPOSITORY_WRITE = Permission.WRITE
    REPOSITORY_ADMIN = Permission.ADMIN

    @property
    def permission(self) -> Permission | None:
        """What it takes in the repository, for an operation on one."""
        return self.value if isinstance(self.value, Permission) else None

    @property
    def words(self) -> str:
        return f"who has `{self.value}` there" if self.permission else str(self.value)


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a request carries.

    Attributes:
        path: a Struct with one field per segment; `query`: one per query parameter.
        rules: how each of those is spelled.
        arguments: the name in the URL of each that the handler takes as it is.
        body: the type of the JSON body.
        window: the handler's argument for it, and the type of its key.
        repository: the handler's argument for it.
    """

    path: type[msgspec.Struct]
    query: type[msgspec.Struct]
    rules: dict[str, Rule]
    arguments: dict[str, str]
    body: Any | None = None
    window: tuple[str, Any] | None = None
    repository: str | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """One method on one path."""

    id: str
    tag: str
    method: str
    path: str
    handler: Callable[..., Awaitable[Any]]
    summary: str
    description: str
    access: Access
    status: int
    errors: tuple[type[ModelyardError], ...]
    inputs: Inputs
    answer: Any
    produces: tuple[str, ...]
    statuses: dict[int, str]

    @property
    def pages(self) -> bool:
        """Whether it answers a list, page by page."""
        return get_origin(self.answer) is Page

    @property
    def streams(self) -> bool:
        """Whether it answers with something else than JSON."""
        return bool(self.produces)


@dataclass(slots=True)
class Operations:
    """The operations of one resource, in the order they are declared."""

    tag: str
    description: str
    declared: list[Operation] = field(default_factory=list)

    def __iter__(self) -> Iterator[Operation]:
        return iter(self.declared)

    def add(
        self,
        method: str,
        path: str,
        *,
        access: Access,
        errors: tuple[type[ModelyardError], ...] = (),
        status: int | None = None,
        produces: tuple[str, ...] = (),
        statuses: dict[int, str] | None = None,
    ) -> Callable[[Handler], Handler]:
        """Declares the decorated handler as an operation.

        Args:
            method: the HTTP method; HEAD comes with GET.
            path: the template below `/api/v1`.
            access: who may call it.
            errors: what it may refuse with, beside what every operation may.
            status: of success; by default 204 for None and 200 otherwise.
            produces: media types, when the handler makes its own response.
            statuses: more statuses than the success that such a response may have, with their meaning.
        """

        def declare(handler: Handler) -> Handler:
            hints = get_type_hints(handler, include_extras=True)
            answer = hints.pop("return")
            nothing = answer is type(None)
            head, _, rest = inspect.cleandoc(handler.__doc__ or "").partition("\n")
            self.declared.append(
                Operation(
                    id=handler.__name__,
                    tag=self.tag,
                    method=method,
                    path=path,
                    handler=handler,
                    summary=head.rstrip("."),
                    description=rest.strip(),
                    access=access,
                    status=status or (204 if nothing else 200),
                    errors=errors,
                    inputs=_inputs(handler, path, hints),
                    answer=None if nothing or issubclass_of(answer, web.StreamResponse) else answer,
                    produces=produces,
                    statuses=statuses or {},
                )
            )
            return handler

        return declare


def issubclass_of(hint: Any, base: type) -> bool:
    """Like `issubclass`, and False for what is not a class."""
    return isinstance(hint, type) and issubclass(hint, base)


def _inputs(handler: Callable[..., Any], path: str, hints: dict[str, Any]) -> Inputs:
    placeholders = set(_PLACEHOLDER.findall(path))
    path_fields: list[Any] = []
    query_fields: list[Any] = []
    body: Any | None = None
    window: tuple[str, Any] | None = None
    repository: str | None = None
    arguments: dict[str, str] = {}
    for name, parameter in list(inspect.signature(handler).parameters.items())[1:]:
        hint, wire = hints[name], name.rstrip("_")
        if name == "body":
            body = hint
        elif hint is RepositoryInfo:
            repository = name
            path_fields += _REPOSITORY_FIELDS
        elif get_origin(hint) is Window:
            window = (name, get_args(hint)[0])
            query_fields += _WINDOW_FIELDS
        else:
            arguments[name] = wire
            fields = path_fields if wire in placeholders else query_fields
            required = parameter.default is parameter.empty
            fields.append((wire, hint) if required else (wire, hint, parameter.default))
    unbound = placeholders.symmetric_difference(item[0] for item in path_fields)
    if unbound:
        raise TypeError(f"{handler.__name__}: {path} and the parameters disagree about {sorted(unbound)}")
    return Inputs(
        path=msgspec.defstruct(f"{handler.__name__}_path", path_fields, kw_only=True),
        query=msgspec.defstruct(
            f"{handler.__name__}_query", query_fields, kw_only=True, forbid_unknown_fields=True
        ),
        rules={item[0]: _rule(item[1]) for item in path_fields + query_fields},
        arguments=arguments,
        body=body,
        window=window,
        repository=repository,
    )


def _rule(hint: Any) -> Rule:
    """The `Rule` in the annotation, also inside `Annotated[...] | None`."""
    for part in (hint, *get_args(hint)):
        for note in getattr(part, "__metadata__", ()):
            if isinstance(note, Rule):
                return note
    return PLAIN
