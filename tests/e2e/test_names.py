"""Addresses and names that try to be something else: over every face they are refused and leave nothing.

The user who tries may create repositories by pushing, so whatever were let through would show.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from urllib.parse import quote

import pytest

from core.access import SYSTEM
from tests.support.hostile_names import BAD_ACCOUNTS, BAD_REPOSITORIES, HTTP_PATHS, SSH_PATHS
from tests.support.raw_http import Reply, basic, request
from tests.support.server import running_server
from tests.support.ssh_client import FLUSH, SshClient, ssh_client
from tests.support.yard import Yard

_API = "/api/v1"
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


@pytest.fixture(scope="module", params=["json", "console"])
def names_yard(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    """A server that anybody could be attacked through whose log is read, in each of its formats."""
    folder = tmp_path_factory.mktemp("names")
    env = {"MODELYARD_SERVER__LOG_FORMAT": request.param}
    with running_server(folder / "server", env=env) as server:
        yard = asyncio.run(Yard.open(server, folder / "clients"))
        asyncio.run(_settle(yard))
        yield yard


@pytest.fixture
async def yard(names_yard: Yard) -> AsyncIterator[Yard]:
    """The same, and the test must leave accounts, repositories, files and the log clean."""
    before = await _state(names_yard)
    yield names_yard
    assert await _state(names_yard) == before
    await names_yard.quiet()
    log = names_yard.server.log_text()
    assert not (found := _CONTROL.search(log)), log[max(0, found.start() - 200) : found.end() + 50]
    assert "Traceback" not in log, log[log.index("Traceback") - 2000 :]


async def _settle(yard: Yard) -> None:
    """One honest push: it makes all of the server's folders, and shows that ann may create."""
    await yard.server.add_user("kate")
    work = yard.git(yard.new_folder())
    await asyncio.to_thread(work, "init", "-q", ".")
    await asyncio.to_thread(work.commit, {"a": "1\n"})
    await asyncio.to_thread(work, "push", "-q", yard.url("ann/honest"), "main")
    async with yard.server.services() as services:
        assert [one.path for one in await services.repositories.list_visible(SYSTEM)] == ["ann/honest"]


async def _state(yard: Yard) -> tuple[list[str], list[str], list[str]]:
    async with yard.server.services() as services:
        repositories = [one.path for one in await services.repositories.list_visible(SYSTEM)]
        accounts = [one.name for one in await services.accounts.list()]
    return repositories, accounts, await asyncio.to_thread(_files, yard)


def _files(yard: Yard) -> list[str]:
    """What lies in the server's folders and one level below; SQLite's passing files left out."""
    folders = [yard.server.directory, yard.data, *(path for path in yard.data.iterdir() if path.is_dir())]
    files = (str(path) for folder in folders for path in folder.iterdir())
    return sorted(path for path in files if not path.endswith(("-wal", "-shm")))


async def _api(yard: Yard, method: str, path: str, body: bytes = b"", *, who: str = "") -> Reply:
    headers = {"Authorization": f"Bearer {who or yard.secret}", "Content-Type": "application/json"}
    return await request(yard.server.http, method, _API + path, headers, body)


async def test_paths_over_http(yard: Yard) -> None:
    """404 for what can be no address, 400 for a name that could not be created; nothing else."""
    wrong = {}
    for path in HTTP_PATHS:
        for service in ("git-receive-pack", "git-upload-pack"):
            reply = await request(
                yard.server.http, "GET", f"{path}/info/refs?service={service}", basic("ann", yard.secret)
            )
            if reply.status not in ((404, 400) if service == "git-receive-pack" else (404,)):
                wrong[path, service] = reply.status
            assert "Injected" not in reply.headers
            assert not _CONTROL.search(reply.text), reply
            assert "passwd:" not in reply.text
            headers = {**basic("ann", yard.secret), "Content-Type": f"application/x-{service}-request"}
            reply = await request(yard.server.http, "POST", f"{path}/{service}", headers, FLUSH)
            if reply.status not in (400, 404):
                wrong[path, f"POST {service}"] = reply.status
    assert not wrong


async def test_raw_bytes_in_the_request_line(yard: Yard) -> None:
    for path in (
        b"/ann/\xff\xfe",
        "/ann/\u212aelvin".encode(),
        b"/ann/x\x1b[31m",
        b"/ann/x\x00",
        b"/ann/x\x7f",
    ):
        target = path + b"/info/refs?service=git-receive-pack"
        reply = await request(yard.server.http, "GET", target, basic("ann", yard.secret))
        assert reply.status in (400, 404), (path, reply)


async def test_the_kelvin_sign_is_no_k(yard: Yard) -> None:
    """Kate is there, and her name in look-alikes is not hers."""
    token = await yard.server.add_token("kate")
    for name in ("%E2%84%AAate", "%EF%BD%8Bate", "%D0%BAate"):
        target = f"/{name}/x/info/refs?service=git-receive-pack"
        assert (await request(yard.server.http, "GET", target, basic("kate", token))).status == 404
        assert (await _api(yard, "GET", f"/users/{name}")).status == 404
        assert (await _api(yard, "GET", f"/repositories?owner={name}")).status == 404
    reply = await request(
        yard.server.http, "GET", f"{_API}/user", basic("\u212aate", "correct horse battery staple")
    )
    assert reply.status == 401


async def test_paths_over_ssh(yard: Yard) -> None:
    async with ssh_client(yard.server.ssh_port, yard.key) as client:
        for path in SSH_PATHS:
            for service in ("git-receive-pack", "git-upload-pack", "git-upload-archive"):
                (await client.run(f"{service} {path}", FLUSH)).refused("")


@pytest.mark.parametrize(
    "command",
    [
        "git-receive-pack --upload-pack=x 'ann/x'",
        "git-upload-pack --strict 'ann/x'",
        "git-upload-pack --timeout=1 -- 'ann/x'",
        "git -c core.sshCommand=id receive-pack 'ann/x'",
        "git-shell",
        "/usr/bin/git-receive-pack 'ann/x'",
        "git-receive-pack\t'ann/x'",
        "GIT-RECEIVE-PACK 'ann/x'",
        "env GIT_DIR=/ git-receive-pack 'ann/x'",
        "git-receive-pack 'ann/x' #",
        "git-receive-pack 'ann/x' > /tmp/x",
        "scp -t /tmp",
        "id",
    ],
)
async def test_commands_over_ssh(yard: Yard, command: str) -> None:
    async with ssh_client(yard.server.ssh_port, yard.key) as client:
        (await client.run(command, FLUSH)).refused("")


async def test_the_real_client_cannot_be_made_to(yard: Yard) -> None:
    work = yard.git(await asyncio.to_thread(yard.new_folder))
    await asyncio.to_thread(work, "init", "-q", ".")
    await asyncio.to_thread(work.commit, {"a": "1\n"})
    for name in ("x.lock", "..", "--upload-pack=x", "settings"):
        for url in (f"{yard.server.http}/ann/{name}", yard.server.ssh_url(f"ann/{name}")):
            done = await asyncio.to_thread(work.run, "push", "-q", url, "main")
            assert done.status != 0, done
            assert re.search("no such repository|reserved|nothing at this address", done.output), done


async def test_names_of_new_repositories(yard: Yard) -> None:
    for kind in ("model", "dataset"):
        for name in BAD_REPOSITORIES:
            body = _json(owner="ann", name=name, type=kind)
            assert (await _api(yard, "POST", "/repositories", body)).status in (400, 422), name
    for owner in ("..", "ann/..", "ann\0", "\uff41nn", "api", "datasets"):
        assert (await _api(yard, "POST", "/repositories", _json(owner=owner, name="x"))).status == 404, owner


async def test_new_names_of_a_repository(yard: Yard) -> None:
    path = await yard.new_repository()
    for name in [*BAD_REPOSITORIES, ""]:
        body = _json(name=name)
        assert (await _api(yard, "POST", f"/repositories/models/{path}/move", body)).status in (400, 422), (
            name
        )
    assert (await _api(yard, "GET", f"/repositories/models/{path}")).status == 200
    assert (await _api(yard, "DELETE", f"/repositories/models/{path}")).status == 204


async def test_names_of_accounts(yard: Yard) -> None:
    async with yard.server.services() as services:
        if not any(one.name == "chief" for one in await services.accounts.list()):
            await services.accounts.create_user(SYSTEM, "chief", is_admin=True)
    chief = await yard.server.add_token("chief")
    for name in BAD_ACCOUNTS:
        for where in ("/users", "/organisations"):
            reply = await _api(yard, "POST", where, _json(name=name), who=chief)
            assert reply.status in (400, 422), (where, name, reply)
        reply = await _api(yard, "POST", "/users/kate/rename", _json(name=name), who=chief)
        assert reply.status in (400, 422), (name, reply)
    assert (await _api(yard, "DELETE", "/users/chief", who=chief)).status in (204, 409)
    async with yard.server.services() as services:
        if any(one.name == "chief" for one in await services.accounts.list()):
            await services.accounts.delete(SYSTEM, "chief")


async def test_addresses_in_the_api(yard: Yard) -> None:
    """An encoded slash is never a separator, and what is encoded twice is decoded once."""
    path = await yard.new_repository()
    name = path.partition("/")[2]
    body = _json(
        branch="main", message="m", operations=[{"action": "put", "path": "a", "content": "secret\n"}]
    )
    assert (await _api(yard, "POST", f"/repositories/models/{path}/commits", body)).status == 201
    for hidden in (
        f"/repositories/models/ann%2f{name}",
        f"/repositories/models/ann/..%2fann%2f{name}",
        f"/repositories/models/ann/%2e%2e/ann/{name}",
        f"/repositories/models/ann/{name}%00",
        f"/repositories/models/ann/{name}%2500",
        f"/repositories/models/ann/{quote(quote(name + '%'))}",
        f"/repositories/models/%61nn%2F{name}",
        f"/repositories/models/%EF%BD%81nn/{name}",
        f"/repositories/datasets/ann/{name}",
        f"/repositories/spaces/ann/{name}",
        f"/repositories/models/ann/{name}/raw/main/..%2fa",
        f"/repositories/models/ann/{name}/raw/main/../a",
        f"/repositories/models/ann/{name}/raw/main/./a",
        f"/repositories/models/ann/{name}/raw/main/a%00",
        f"/repositories/models/ann/{name}/raw/main/.git/config",
        f"/repositories/models/ann/{name}/raw/main/%2fetc%2fpasswd",
        f"/repositories/models/ann/{name}/raw/--help/a",
        f"/repositories/models/ann/{name}/raw/main%5e{{%2fm}}/a",
        f"/repositories/models/ann/{name}/commits/--all",
        f"/repositories/models/ann/{name}/commits/main..main",
        f"/repositories/models/ann/{name}/archive/--output=x.zip",
    ):
        reply = await _api(yard, "GET", hidden)
        assert reply.status == 404, (hidden, reply)
        assert b"secret" not in reply.body
    assert (await _api(yard, "GET", f"/repositories/models/%61nn/{name}/raw/main/%61")).body == b"secret\n"
    assert (await _api(yard, "DELETE", f"/repositories/models/{path}")).status == 204


async def test_paths_refs_and_messages_in_commits(yard: Yard) -> None:
    path = await yard.new_repository()
    commits = f"/repositories/models/{path}/commits"
    for file in (
        "../x",
        "/x",
        "a/../x",
        ".git/config",
        ".GIT/hooks/x",
        "a//b",
        "a/",
        ".",
        "a\0b",
        "git~1/x",
        "",
    ):
        edit = {"action": "put", "path": file, "content": ""}
        reply = await _api(yard, "POST", commits, _json(branch="main", message="m", operations=[edit]))
        assert reply.status in (400, 422), (file, reply)
    edit = {"action": "put", "path": "a", "content": ""}
    for branch in (
        "..",
        "a..b",
        "-x",
        "a.lock",
        "a b",
        "a\0",
        "@{0}",
        "a~1",
        "HEAD",
        "a\\b",
        "refs/../x",
        "x" * 501,
    ):
        reply = await _api(yard, "POST", commits, _json(branch=branch, message="m", operations=[edit]))
        assert reply.status in (400, 422), (branch, reply)
    assert (
        await _api(yard, "POST", commits, _json(branch="main", message="m", operations=[edit]))
    ).status == 201
    for where in ("branches", "tags"):
        for ref in ("..", "a..b", "-x", "a.lock", "a b", "a\0", "@{0}", "a~1", "a\\b", "/x", "x/", "a\u0000"):
            reply = await _api(
                yard, "POST", f"/repositories/models/{path}/{where}", _json(name=ref, revision="main")
            )
            assert reply.status in (400, 422), (where, ref, reply)
    assert (await _api(yard, "DELETE", f"/repositories/models/{path}")).status == 204


async def test_controls_in_what_is_logged(yard: Yard) -> None:
    """Agents, logins and commands are logged; a terminal that shows the log is not driven by them."""
    evil = "\x1b]0;owned\x07\x9b31m\u202e"
    for headers in (
        {"User-Agent": "x\x1b[31m"},
        {"User-Agent": "x\u202e".encode().decode("latin-1")},
        basic(f"ann{evil}", "wrong password"),
        {"Authorization": "Bearer \x1b[31m"},
        {"X-Request-Id": "x\x1b[31m"},
    ):
        reply = await request(yard.server.http, "GET", "/ann/x/info/refs?service=git-receive-pack", headers)
        assert reply.status in (400, 401), reply
    async with ssh_client(yard.server.ssh_port, yard.key) as client:
        await _refused_quietly(client, f"git-upload-pack 'ann/{evil}'")
        await _refused_quietly(client, evil)


async def _refused_quietly(client: SshClient, command: str) -> None:
    said = await client.run(command)
    said.refused("")
    assert "owned" not in said.err


def _json(**members: object) -> bytes:
    return json.dumps(members).encode()
