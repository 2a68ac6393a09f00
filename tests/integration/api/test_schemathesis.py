"""Every operation, with requests made up from its own description: no 5xx, nothing undocumented.

Deterministic, and bounded by the number of examples per operation.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import (
    content_type_conformance,
    negative_data_rejection,
    not_a_server_error,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)
from schemathesis.config import GenerationConfig, ProjectConfig, ProjectsConfig, SchemathesisConfig
from schemathesis.core.result import Ok

from tests.support.api import ApiServer, api_settings, running_api
from tests.support.database import Databases

EXAMPLES = 20
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    unsupported_method,
]

# What half of the requests aim at, so that they get past "there is no such thing".
KNOWN: dict[str, str] = {
    "type": "models",
    "owner": "alice",
    "organisation": "acme",
    "user": "bob",
    "revision": "main",
    "base": "main",
    "head": "topic",
    "branch": "topic",
    "tag": "v1",
    "path": "src",
    "rule": "1",
    "key": "1",
    "token": "2",  # the first is the administrator's own
    "event": "push",
}
# The webhooks that were made, by what stands before them in the path; each has one delivery.
DELIVERIES: dict[str, str] = {}
WEBHOOKS = {"/repositories/": "1", "/users/": "2", "/organisations/": "3", "/webhooks": "4"}
# These would take the known things away from all that come later.
UNAIMED = frozenset(
    """
    delete_organisation delete_repository delete_user move_repository rename_organisation rename_user
    delete_repository_webhook delete_user_webhook delete_organisation_webhook delete_server_webhook
    """.split()
)


@dataclass(frozen=True)
class Live:
    """A server in another thread."""

    base: str
    root: dict[str, str]


@asynccontextmanager
async def _furnished(directory: Path, databases: Databases) -> AsyncIterator[ApiServer]:
    async with databases.fresh("sqlite") as url, running_api(api_settings(directory, url)) as api:
        alice = await api.user("alice")
        await api.user("bob")
        path = await api.repository(alice, "net", visibility="public")
        await alice.ok("POST", "/organisations", {"name": "acme"})
        await alice.ok("POST", f"{path}/branches", {"name": "topic", "revision": "main"})
        await alice.ok("POST", f"{path}/tags", {"name": "v1", "revision": "main", "message": "One"})
        await alice.ok("POST", f"{path}/branch-rules", {"pattern": "protected"})
        await alice.ok("POST", f"{path}/rules", {"name": "1", "run": "training"})
        await alice.ok("POST", "/users/alice/keys", {"key": _key(3)})
        await alice.ok("POST", f"{path}/deploy-keys", {"key": _key(4)})
        for where in (path, "/users/bob", "/organisations/acme", ""):
            webhook = {"url": "https://receiver.invalid/", "events": ["push"]}
            made = await api.root.ok("POST", f"{where}/webhooks", webhook)
            delivery = (await api.root.ok("POST", f"{where}/webhooks/{made['id']}/ping"))["id"]
            DELIVERIES[str(made["id"])] = delivery
        yield api


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, databases: Databases) -> Iterator[Live]:
    """The API, alive as long as this module runs; requests come from this thread."""
    started, found = threading.Event(), []
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        async with _furnished(tmp_path_factory.mktemp("live"), databases) as api:
            found.append(Live(api.base, api.root.headers))
            started.set()
            await stop.wait()

    def run() -> None:
        try:
            loop.run_until_complete(serve())
        finally:
            started.set()
            loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    started.wait(60)
    assert found, "the server did not start"
    yield found[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join(60)


@pytest.mark.parametrize("who", ["administrator", "anonymous"])
def test_every_operation_keeps_its_promises(live: Live, who: str) -> None:
    config = SchemathesisConfig(
        projects=ProjectsConfig(default=ProjectConfig(generation=GenerationConfig(deterministic=True)))
    )
    schema = schemathesis.openapi.from_url(f"{live.base}/api/v1/openapi.json", config=config)
    headers = live.root if who == "administrator" else {}
    succeeded = {}
    with requests.Session() as session:
        for result in schema.get_all_operations():
            assert isinstance(result, Ok), result
            succeeded[result.ok().label] = _explore(result.ok(), session, headers)
    assert len(succeeded) > 60
    if who == "administrator":
        never = {label for label, once in succeeded.items() if not once}
        assert len(never) < len(succeeded) / 3, f"the requests miss their aim: {sorted(never)}"


def _explore(operation: Any, session: requests.Session, headers: dict[str, str]) -> bool:
    """Sends requests; returns whether one of them succeeded."""
    statuses = set()
    aimable = operation.definition.raw["operationId"] not in UNAIMED

    @given(case=operation.as_strategy(), aimed=st.booleans())
    @settings(
        derandomize=True,
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def send(case: Any, aimed: bool) -> None:
        if aimed and aimable:
            _aim(case)
        answer = case.call_and_validate(session=session, headers=headers, checks=CHECKS, timeout=30)
        statuses.add(answer.status_code)

    send()
    return any(status < 300 for status in statuses)


def _aim(case: Any) -> None:
    """Points the request at things that exist, and takes away what nobody can guess."""
    for name in case.path_parameters or {}:
        known = KNOWN.get(name) or ("net" if "owner" in case.path_parameters else "alice")
        case.path_parameters[name] = known
    if "/raw/" in case.path:
        case.path_parameters["path"] = "README.md"
    if "/deploy-keys/" in case.path:
        case.path_parameters["key"] = "2"
    if "/webhooks" in case.path:
        _aim_at_webhook(case)
    for name in ("cursor", "expected", "revision", "path", "owner"):
        (case.query or {}).pop(name, None)
    if isinstance(case.body, dict):
        key = _key(2 if "deploy" in case.path else 1)
        for name, value in {"branch": "main", "revision": "main", "owner": "alice", "key": key}.items():
            if isinstance(case.body.get(name), str):
                case.body[name] = value


def _aim_at_webhook(case: Any) -> None:
    webhook = next(number for start, number in WEBHOOKS.items() if case.path.startswith(start))
    parameters = case.path_parameters or {}
    known = {"webhook": webhook, "delivery": DELIVERIES[webhook]}
    parameters.update({name: value for name, value in known.items() if name in parameters})
    if isinstance(case.body, dict):
        case.body.pop("secret", None)
        members = {"url": "https://receiver.invalid/", "events": ["push"], "ids": [DELIVERIES[webhook]]}
        case.body.update({name: value for name, value in members.items() if name in case.body})


def _key(number: int) -> str:
    private = Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)
    return private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
