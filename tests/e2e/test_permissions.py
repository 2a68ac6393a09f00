"""The permission table on every face: HTTP, SSH and REST, each subject with a repository of its own."""

import asyncio
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import asyncssh
import pytest

from core.access import SYSTEM, Permission
from core.models import Visibility
from modelyard.api.operation import REPOSITORY
from modelyard.api.routes import openapi
from tests.support.permission_matrix import Outcome, Subject
from tests.support.permission_subjects import DEPLOY_KEYS, TOKENS, Matrix, Standing, account_of
from tests.support.raw_http import RawConnection, Reply, connected
from tests.support.server import running_server
from tests.support.ssh_client import FLUSH, SshClient, ssh_client
from tests.support.ssh_public_keys import public_key_text
from tests.support.wire import ZERO, PackBuilder, pkt, push_request, read_report

_BY_HTTP = [one for one in Subject if one not in DEPLOY_KEYS]
_BY_SSH = [one for one in Subject if one not in TOKENS]
_STATUS = {Outcome.AUTH: 401, Outcome.MISSING: 404, Outcome.DENIED: 403}
_READ, _WRITE, _ADMIN = Permission


class Call(NamedTuple):
    """One operation of the REST face below the repository; `{id}` is what the last `POST` made."""

    permission: Permission
    method: str
    path: str
    status: int = 200
    body: Mapping[str, object] | None = None


def _commit(path: str) -> dict[str, object]:
    edit = {"action": "put", "path": path, "content": "changed\n"}
    return {"branch": "main", "message": "m", "operations": [edit]}


# In this order each can be done by whoever may; deleting the repository has a test of its own.
_CALLS = [
    Call(_READ, "GET", ""),
    Call(_READ, "GET", "/branches"),
    Call(_READ, "GET", "/branches/main"),
    Call(_READ, "GET", "/tags"),
    Call(_READ, "GET", "/tags/v1"),
    Call(_READ, "GET", "/tree/main"),
    Call(_READ, "GET", "/tree/main/dir"),
    Call(_READ, "GET", "/raw/main/dir/a"),
    Call(_READ, "GET", "/commits"),
    Call(_READ, "GET", "/commits/main"),
    Call(_READ, "GET", "/compare/v1...main"),
    Call(_READ, "GET", "/archive/main.zip"),
    Call(_READ, "GET", "/archive/main.tar.gz"),
    Call(_READ, "GET", "/lfs/usage"),
    Call(_READ, "GET", "/lfs/objects"),
    Call(_READ, "GET", f"/lfs/objects/{'0' * 64}", 404),
    Call(_READ, "GET", "/revisions/main/metadata"),
    Call(_READ, "GET", "/tensors/v1...main"),
    Call(_WRITE, "POST", "/commits", 201, _commit("new")),
    Call(_WRITE, "POST", "/branches", 201, {"name": "made", "revision": "main"}),
    Call(_WRITE, "DELETE", "/branches/made", 204),
    Call(_WRITE, "POST", "/tags", 201, {"name": "made", "revision": "main"}),
    Call(_WRITE, "DELETE", "/tags/made", 204),
    Call(_WRITE, "GET", "/rules"),
    Call(_WRITE, "GET", "/rules/nothing", 404),
    Call(_WRITE, "GET", "/requests"),
    Call(_WRITE, "GET", "/requests/nothing", 404),
    Call(_ADMIN, "PATCH", "", 200, {"description": "changed"}),
    Call(_ADMIN, "POST", "/move", 200, {"name": "{renamed}"}),
    Call(_ADMIN, "GET", "/lfs/trash"),
    Call(_ADMIN, "GET", "/collaborators"),
    Call(_ADMIN, "PUT", "/collaborators/pat", 200, {"role": "read"}),
    Call(_ADMIN, "DELETE", "/collaborators/pat", 204),
    Call(_ADMIN, "GET", "/deploy-keys"),
    Call(_ADMIN, "POST", "/deploy-keys", 201, {"key": "{key}"}),
    Call(_ADMIN, "GET", "/deploy-keys/{id}"),
    Call(_ADMIN, "DELETE", "/deploy-keys/{id}", 204),
    Call(_ADMIN, "GET", "/branch-rules"),
    Call(_ADMIN, "POST", "/branch-rules", 201, {"pattern": "release/*"}),
    Call(_ADMIN, "GET", "/branch-rules/{id}"),
    Call(_ADMIN, "PUT", "/branch-rules/{id}", 200, {"allow_force": True}),
    Call(_ADMIN, "DELETE", "/branch-rules/{id}", 204),
    Call(_ADMIN, "POST", "/rules", 201, {"name": "nightly", "run": "training"}),
    Call(_ADMIN, "PATCH", "/rules/nightly", 200, {"enabled": False}),
    Call(_ADMIN, "DELETE", "/rules/nightly", 204),
    Call(_ADMIN, "GET", "/webhooks"),
    Call(_ADMIN, "GET", "/webhook-deliveries"),
    Call(_ADMIN, "POST", "/webhooks", 201, {"url": "https://receiver.invalid/", "events": ["push"]}),
    Call(_ADMIN, "GET", "/webhooks/{id}"),
    Call(_ADMIN, "PATCH", "/webhooks/{id}", 200, {"name": "trainer"}),
    Call(_ADMIN, "POST", "/webhooks/{id}/secret", 200, {"keep_hours": 1}),
    Call(_ADMIN, "DELETE", "/webhooks/{id}/secret/former", 204),
    Call(_ADMIN, "POST", "/webhooks/{id}/pause"),
    Call(_ADMIN, "POST", "/webhooks/{id}/resume"),
    Call(_ADMIN, "POST", "/webhooks/{id}/ping", 202),
    Call(_ADMIN, "POST", "/webhooks/{id}/test", 202, {"event": "push"}),
    Call(_ADMIN, "GET", "/webhooks/{id}/deliveries"),
    Call(_ADMIN, "GET", "/webhooks/{id}/deliveries/nothing", 404),
    Call(_ADMIN, "POST", "/webhooks/{id}/deliveries/nothing/redeliver", 404),
    Call(_ADMIN, "POST", "/webhooks/{id}/deliveries/nothing/cancel", 404),
    Call(_ADMIN, "POST", "/webhooks/{id}/redeliver", 404, {"ids": ["nothing"]}),
    Call(_ADMIN, "POST", "/webhooks/{id}/replay", 202, {"since": "2026-01-01T00:00:00Z"}),
    Call(_ADMIN, "DELETE", "/webhooks/{id}", 204),
]
_DELETE = Call(_ADMIN, "DELETE", "", 204)


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matrix]:
    with running_server(tmp_path_factory.mktemp("matrix") / "server") as server:
        made = Matrix(server)
        asyncio.run(made.prepare())
        yield made


def _refuses_to_log_in(reply: Reply) -> None:
    assert reply.headers["WWW-Authenticate"].startswith("Basic realm="), reply


# -- HTTP --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("visibility", list(Visibility))
@pytest.mark.parametrize("subject", _BY_HTTP)
async def test_git_over_http(matrix: Matrix, subject: Subject, visibility: Visibility) -> None:
    standing = matrix[subject, visibility]
    before = await matrix.state(standing)
    ls_refs = pkt("command=ls-refs\n") + b"0001" + FLUSH
    fetch = pkt("command=fetch\n") + b"0001" + pkt(f"want {standing.head}\n") + pkt("done\n") + FLUSH
    async with connected(matrix.server.http) as connection:

        async def info_refs(service: str, permission: Permission) -> None:
            target = f"/{standing.path}.git/info/refs?service={service}"
            reply = await connection.request("GET", target, standing.login)
            _is_git(standing, permission, reply, f"{standing.head} refs/heads/main")

        async def post(service: str, permission: Permission, body: bytes, says: str) -> Reply:
            kind = {"Content-Type": f"application/x-{service}-request", "Git-Protocol": "version=2"}
            target = f"/{standing.path}/{service}"
            reply = await connection.request("POST", target, {**standing.login, **kind}, body)
            _is_git(standing, permission, reply, says)
            return reply

        await info_refs("git-upload-pack", _READ)
        await info_refs("git-receive-pack", _WRITE)
        await post("git-upload-pack", _READ, ls_refs, f"{standing.head} refs/heads/main")
        await post("git-upload-pack", _READ, fetch, "PACK")
        await post("git-receive-pack", _WRITE, FLUSH, "")
        reply = await post("git-receive-pack", _WRITE, _push(standing, "over-http"), "")
    may_write = standing.outcome(_WRITE) is Outcome.OK
    assert (reply.status == 200 and read_report(reply.body).ok) is may_write
    assert (await matrix.state(standing) != before) is may_write


def _is_git(standing: Standing, permission: Permission, reply: Reply, says: str) -> None:
    outcome = standing.outcome(permission)
    if outcome is Outcome.OK:
        assert reply.status == 200, reply
        assert says.encode() in reply.body, reply
        return
    assert reply.status == _STATUS[outcome], reply
    assert reply.text.count("\n") == 1, reply
    assert standing.head not in reply.text
    if outcome is Outcome.AUTH:
        _refuses_to_log_in(reply)


def _push(standing: Standing, branch: str) -> bytes:
    """A new branch at a commit that is there already."""
    return push_request([(ZERO, standing.head, f"refs/heads/{branch}")], PackBuilder().build())


# -- SSH ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("visibility", list(Visibility))
@pytest.mark.parametrize("subject", _BY_SSH)
async def test_git_over_ssh(matrix: Matrix, subject: Subject, visibility: Visibility) -> None:
    standing = matrix[subject, visibility]
    if subject in (Subject.ANONYMOUS, Subject.SUSPENDED):  # SSH has no anonymous readers
        with pytest.raises(asyncssh.PermissionDenied):
            async with ssh_client(matrix.server.ssh_port, standing.key):
                raise AssertionError("logged in")
        return
    before = await matrix.state(standing)
    async with ssh_client(matrix.server.ssh_port, standing.key) as client:
        for service, permission in [
            ("git-upload-pack", _READ),
            ("git-upload-archive", _READ),
            ("git-receive-pack", _WRITE),
        ]:
            await _is_served(client, standing, service, permission)
        said = await client.run(f"git-receive-pack '{standing.path}.git'", _push(standing, "over-ssh"))
    may_write = standing.outcome(_WRITE) is Outcome.OK
    assert (said.status == 0 and b"ok refs/heads/over-ssh" in said.out) is may_write, said
    assert (await matrix.state(standing) != before) is may_write


async def _is_served(client: SshClient, standing: Standing, service: str, permission: Permission) -> None:
    said = await client.git(service, standing.path)
    match standing.outcome(permission):
        case Outcome.OK:
            assert (said.status, said.err) == (0, ""), said
            assert (b"dir/a" if service == "git-upload-archive" else standing.head.encode()) in said.out
        case Outcome.MISSING:
            said.refused("no such repository, or you may not see it")
        case Outcome.DENIED:
            said.refused("may only read" if standing.subject in DEPLOY_KEYS else "write is needed")
        case Outcome.AUTH:
            raise AssertionError("only anonymous and suspended subjects are asked to log in")


# -- what people read --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subject", "visibility", "said"),
    [
        (Subject.ANONYMOUS, Visibility.PRIVATE, "log in with a user name"),
        (Subject.ANONYMOUS, Visibility.PUBLIC, None),
        (Subject.STRANGER, Visibility.PRIVATE, "no such repository, or you may not see it"),
        (Subject.READER, Visibility.PRIVATE, None),
    ],
)
async def test_real_clones(
    matrix: Matrix, tmp_path: Path, subject: Subject, visibility: Visibility, said: str | None
) -> None:
    standing = matrix[subject, visibility]
    user = "" if subject is Subject.ANONYMOUS else account_of(subject)
    git = matrix.server.git(tmp_path, user=user, key=standing.key)
    urls = [matrix.server.url(standing.path), *([matrix.server.ssh_url(standing.path)] if user else [])]
    for number, url in enumerate(urls):
        done = await asyncio.to_thread(git.run, "clone", "-q", url, f"clone{number}")
        assert (done.status == 0) is (said is None), done
        assert (said or "") in done.output
        if said is None:
            assert (tmp_path / f"clone{number}" / "dir" / "a").read_text() == "1\n"


async def test_a_real_push_of_a_reader(matrix: Matrix, tmp_path: Path) -> None:
    standing = matrix[Subject.READER, Visibility.PRIVATE]
    git = matrix.server.git(tmp_path, user=account_of(Subject.READER), key=standing.key)
    await asyncio.to_thread(git, "clone", "-q", matrix.server.url(standing.path), ".")
    await asyncio.to_thread(git.commit, {"b": "2\n"})
    for url in (matrix.server.url(standing.path), matrix.server.ssh_url(standing.path)):
        done = await asyncio.to_thread(git.run, "push", url, "main")
        assert done.status != 0
        assert "your role here is read, and write is needed" in done.output, done


# -- REST --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("visibility", list(Visibility))
@pytest.mark.parametrize("subject", _BY_HTTP)
async def test_rest(matrix: Matrix, subject: Subject, visibility: Visibility) -> None:
    standing = matrix[subject, visibility]
    before = await matrix.state(standing)
    made, name = 1, standing.repository.name
    async with connected(matrix.server.http) as connection:
        for call in _CALLS:
            path = call.path.replace("{id}", str(made))
            replaced = {"{renamed}": f"{name}-x", "{key}": public_key_text()}
            body = {key: replaced.get(str(value), value) for key, value in (call.body or {}).items()}
            reply = await _rest(connection, standing, call, name, path, body)
            if reply.status == 201:
                made = json.loads(reply.body).get("id", made)
            if reply.status < 300 and path == "/move":
                name = f"{name}-x"
    changed = await matrix.state(standing) != before
    assert changed is (standing.outcome(_WRITE) is Outcome.OK)


@pytest.mark.parametrize("visibility", list(Visibility))
@pytest.mark.parametrize("subject", _BY_HTTP)
async def test_large_files(matrix: Matrix, subject: Subject, visibility: Visibility) -> None:
    standing = matrix[subject, visibility]
    target = f"/{standing.repository.path}.git/info/lfs/objects/batch"
    headers = {**standing.login, "Content-Type": "application/vnd.git-lfs+json"}
    for operation, permission in (("download", _READ), ("upload", _WRITE)):
        body = {"operation": operation, "objects": [{"oid": "0" * 64, "size": 1}]}
        async with connected(matrix.server.http) as connection:  # a refused body ends the connection
            reply = await connection.request("POST", target, headers, json.dumps(body).encode())
        outcome = standing.outcome(permission)
        assert reply.status == (200 if outcome is Outcome.OK else _STATUS[outcome]), (operation, reply)
        if outcome is Outcome.OK:
            (answer,) = json.loads(reply.body)["objects"]
            assert ("actions" in answer) is (operation == "upload")


@pytest.mark.parametrize("visibility", list(Visibility))
@pytest.mark.parametrize("subject", _BY_HTTP)
async def test_rest_deletes(matrix: Matrix, subject: Subject, visibility: Visibility) -> None:
    standing = matrix[subject, visibility]
    may = standing.outcome(_ADMIN) is Outcome.OK
    victim = await matrix.another(standing) if may else standing.repository
    async with connected(matrix.server.http) as connection:
        await _rest(connection, standing, _DELETE, victim.name, "", {})
    async with matrix.server.services() as services:
        left = [one.id for one in await services.repositories.list_visible(SYSTEM, owner=victim.owner)]
    assert (victim.id not in left) is may


async def _rest(
    connection: RawConnection,
    standing: Standing,
    call: Call,
    name: str,
    path: str,
    body: Mapping[str, object],
) -> Reply:
    """Sends the call, checks the answer against the table, and returns it."""
    target = f"/api/v1/repositories/models/{standing.repository.owner}/{name}{path}"
    headers = {**standing.login, **({"Content-Type": "application/json"} if body else {})}
    reply = await connection.request(call.method, target, headers, json.dumps(body).encode() if body else b"")
    outcome = standing.outcome(call.permission)
    if outcome is Outcome.OK:
        assert reply.status == call.status, (call, reply)
        return reply
    assert reply.status == _STATUS[outcome], (call, reply)
    assert json.loads(reply.body)["status"] == reply.status
    if outcome is Outcome.AUTH:
        _refuses_to_log_in(reply)
    return reply


def test_no_operation_is_left_out() -> None:
    """A new operation on a repository must say here whom it is for."""
    paths = openapi()["paths"]
    assert isinstance(paths, dict)
    declared = {
        (method.upper(), path.removeprefix(REPOSITORY))
        for path, operations in paths.items()
        if path.startswith(REPOSITORY)
        for method in operations
        if method in ("get", "post", "put", "patch", "delete")
    }
    uncalled = {
        (method, path)
        for method, path in declared
        if not any(call.method == method and _matches(path, call.path) for call in [*_CALLS, _DELETE])
    }
    assert not uncalled


def _matches(template: str, path: str) -> bool:
    pattern = "".join(
        "[^/]+" if part.startswith("{") else re.escape(part) for part in re.split(r"(\{\w+\})", template)
    )
    return (
        re.fullmatch(pattern.removesuffix("[^/]+") + ".+" if template.endswith("{path}") else pattern, path)
        is not None
    )
