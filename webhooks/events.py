"""The catalogue of events: version, JSON Schema and example of each; and patterns over their names."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from core.errors import Unprocessable
from core.outbox import EventName
from webhooks import payloads

_MAX_PATTERNS = 50


class RepositoryOfEvent(Struct):
    """The repository that an event is about, as it was when the event was told."""

    id: str
    type: str
    owner: str
    name: str
    path: str
    visibility: str
    default_branch: str


class Envelope(Struct, kw_only=True):
    """What every delivery has in common."""

    id: Annotated[str, Meta(description="Of the event; one event may reach several subscriptions.")]
    type: str
    version: int
    timestamp: Annotated[str, Meta(description="When it happened: RFC 3339, in UTC.")]
    repository: RepositoryOfEvent | None
    actor: Annotated[str | None, Meta(description="Who did it; null is the server.")]
    data: dict[str, Any]
    truncated: Annotated[
        bool, Meta(description="The largest members of `data` were left out: read them over REST.")
    ] = False
    test: Annotated[bool, Meta(description="Nothing happened: somebody tries the receiver out.")] = False


@dataclass(frozen=True, slots=True)
class EventKind:
    """One entry of the catalogue; `schema` (draft 2020-12) and `example` are of the whole body."""

    name: EventName
    version: int
    description: str
    schema: dict[str, Any]
    example: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Payload:
    kind: type[Struct]
    example: Mapping[str, Any]
    version: int = 1


_OID = "9d1f1f2c3f0c5a0b6f5e4d3c2b1a09f8e7d6c5b4"
_BEFORE = "1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e"
_MAIN = "refs/heads/main"
_SUMMARY = {"task": "text-generation", "library": "transformers", "parameters": 134515008}
_REPOSITORY = RepositoryOfEvent(
    id="3f0c5a0b6f5e4d3c2b1a09f8e7d6c5b4",
    type="model",
    owner="acme",
    name="net",
    path="acme/net",
    visibility="private",
    default_branch="main",
)
_NAME = {"action": "created", "ref": _MAIN, "name": "main", "oid": _OID}
_VERSION = {"push_id": 42, "ref": _MAIN, "commit": _OID, "summary": _SUMMARY, "findings": []}
_RUN = {
    "run_id": "run_5f0c1d2e",
    "kind": "training",
    "request_id": "req_0b6f5e4d3c2b",
    "ref": _MAIN,
    "commit": _OID,
}
_PATHS = {"id": _REPOSITORY.id, "path": "acme/net"}


def _requested(rule: str, parameters: Mapping[str, Any]) -> _Payload:
    example = {
        "request_id": "req_0b6f5e4d3c2b",
        "rule": rule,
        "source": "file",
        "ref": _MAIN,
        "commit": _OID,
        "parameters": parameters,
        "metadata": _SUMMARY,
        "chain": [],
        "push_id": 42,
    }
    return _Payload(payloads.Requested, example)


_PAYLOADS: Mapping[EventName, _Payload] = {
    EventName.PUSH: _Payload(
        payloads.Push, {"push_id": 42, "updates": [{"ref": _MAIN, "old": _BEFORE, "new": _OID}]}
    ),
    EventName.BRANCH: _Payload(payloads.RefName, _NAME),
    EventName.TAG: _Payload(payloads.RefName, {**_NAME, "ref": "refs/tags/v1", "name": "v1"}),
    EventName.REPOSITORY_CREATED: _Payload(payloads.RepositoryMade, _PATHS),
    EventName.REPOSITORY_DEFAULT_BRANCH_CHANGED: _Payload(
        payloads.DefaultBranchChanged, {"path": "acme/net", "default_branch": "main"}
    ),
    EventName.REPOSITORY_DELETED: _Payload(payloads.RepositoryDeleted, _PATHS),
    EventName.REPOSITORY_RENAMED: _Payload(
        payloads.RepositoryRenamed, {"path": "acme/net", "previous": "acme/draft"}
    ),
    EventName.MODEL_VERSION_CREATED: _Payload(payloads.VersionCreated, _VERSION),
    EventName.MODEL_METADATA_UPDATED: _Payload(
        payloads.MetadataUpdated,
        {
            "commit": _OID,
            "previous": _BEFORE,
            "changes": {"task": {"before": None, "after": "text-generation"}},
        },
    ),
    EventName.DATASET_VERSION_CREATED: _Payload(
        payloads.VersionCreated, {**_VERSION, "summary": {"rows": 1000, "columns": ["text", "label"]}}
    ),
    EventName.TRAINING_REQUESTED: _requested("fine-tune", {"epochs": 3}),
    EventName.EVALUATION_REQUESTED: _requested("evaluate", {"suite": "mmlu"}),
    EventName.DEPLOYMENT_REQUESTED: _requested("deploy", {"replicas": 2}),
    EventName.RUN_QUEUED: _Payload(payloads.Run, _RUN),
    EventName.RUN_STARTED: _Payload(payloads.Run, _RUN),
    EventName.RUN_SUCCEEDED: _Payload(payloads.Run, _RUN),
    EventName.RUN_FAILED: _Payload(payloads.Run, {**_RUN, "message": "out of memory"}),
    EventName.RUN_CANCELLED: _Payload(payloads.Run, _RUN),
    EventName.WEBHOOK_PAUSED: _Payload(
        payloads.WebhookPaused,
        {
            "webhook_id": 7,
            "scope": "repository",
            "target": "acme/net",
            "name": "trainer",
            "receiver": "hooks.example.org:443",
            "reason": "nothing was delivered for 72 hours",
        },
    ),
    EventName.PING: _Payload(payloads.Ping, {"webhook_id": 7, "events": ["push", "training.*"]}),
}

_VERSIONS = {name.value: payload.version for name, payload in _PAYLOADS.items()}


def version_of(name: str) -> int:
    """The version of the payloads that this server writes; 1 for a name that it does not know."""
    return _VERSIONS.get(name, 1)


def example_data(name: EventName) -> dict[str, Any]:
    """An example of `data`, which is the caller's to change."""
    return dict(_PAYLOADS[name].example)


def example_repository() -> dict[str, str]:
    """The repository of the examples, as `outbox.identity` describes one."""
    return msgspec.structs.asdict(_REPOSITORY)


@cache
def catalogue() -> tuple[EventKind, ...]:
    """Every event, in the order of `EventName`. Not to be changed."""
    return tuple(_kind(name, payload) for name, payload in _PAYLOADS.items())


def check_patterns(patterns: Sequence[str]) -> list[str]:
    """What a subscription is for: names of events, `subject.*`, or `*`; sorted, each once.

    Raises:
        Unprocessable: one matches no event, or there are none or more than 50.
    """
    if not 0 < len(patterns) <= _MAX_PATTERNS:
        raise Unprocessable(f"a webhook is for 1 to {_MAX_PATTERNS} events", field="events")
    for pattern in patterns:
        if not any(matches([pattern], name) for name in EventName):
            shown = pattern[:64].encode("unicode_escape").decode("ascii")
            raise Unprocessable(f"there is no event {shown}; see /api/v1/events", field="events")
    return sorted(set(patterns))


def matches(patterns: Iterable[str], name: str) -> bool:
    """Whether one of the patterns means the event."""
    return any(
        pattern in ("*", name) or (pattern.endswith(".*") and name.startswith(pattern[:-1]))
        for pattern in patterns
    )


def _kind(name: EventName, payload: _Payload) -> EventKind:
    about_repository = name not in {EventName.PING, EventName.WEBHOOK_PAUSED}
    example = Envelope(
        id="evt_1234",
        type=name.value,
        version=payload.version,
        timestamp="2026-01-31T12:00:00.000000Z",
        repository=_REPOSITORY if about_repository else None,
        actor=None if name is EventName.WEBHOOK_PAUSED else "ann",
        data=dict(payload.example),
    )
    schema = msgspec.json.schema(Envelope)
    data = msgspec.json.schema(payload.kind)
    definitions = {**schema["$defs"], **data.get("$defs", {})}
    definitions[payload.kind.__name__]["title"] = "data"
    envelope = definitions.pop("Envelope")
    envelope["properties"]["type"] = {"const": name.value}
    envelope["properties"]["version"] = {"const": payload.version}
    envelope["properties"]["data"] = {"$ref": data["$ref"]}
    return EventKind(
        name=name,
        version=payload.version,
        description=(payload.kind.__doc__ or "").splitlines()[0],
        schema={
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            **envelope,
            "title": name.value,
            "$defs": definitions,
        },
        example=msgspec.to_builtins(example),
    )
