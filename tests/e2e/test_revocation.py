"""What ends at once, and what goes on: former addresses live, dead credentials do not."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import count

import asyncssh
import pytest
from sqlalchemy import update

from core.access import SYSTEM, Permission
from core.models import AccessToken, Role, Scope, Visibility, now
from core.names import parse_address
from modelyard.services import Services
from tests.support.git import Git
from tests.support.raw_http import RawConnection, basic, chunked, connected, request
from tests.support.server import PASSWORD, RunningServer, running_server
from tests.support.ssh import ClientKey
from tests.support.ssh_client import SshClient, ssh_client
from tests.support.wire import PackBuilder, push_request, read_report, simple_commit

_numbers = count(1)


@dataclass(frozen=True)
class Person:
    """A user with a password, a token and a key, and one private repository with one commit."""

    server: RunningServer
    name: str
    token: str
    key: ClientKey
    head: str

    @property
    def path(self) -> str:
        return f"{self.name}/demo"

    def git(self) -> Git:
        folder = self.server.directory / f"work{next(_numbers)}"
        folder.mkdir()
        return self.server.git(folder, user=self.name, secret=self.token, key=self.key)

    def logins(self) -> dict[str, dict[str, str]]:
        return {
            "token": {"Authorization": f"Bearer {self.token}"},
            "token for a password": basic("x", self.token),
            "password": basic(self.name, PASSWORD),
        }


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    # Dead passwords are wrong ones; without a limit of their own they would slow each other down.
    env = {"MODELYARD_AUTH__FAILURES_BEFORE_BACKOFF": "1000"}
    with running_server(tmp_path_factory.mktemp("revocation") / "server", env=env) as started:
        yield started


@pytest.fixture
async def person(server: RunningServer) -> Person:
    return await _person(server)


@pytest.fixture
async def services(server: RunningServer) -> AsyncIterator[Services]:
    """What an administrator does on the machine itself, beside the running server."""
    async with server.services() as opened:
        yield opened


async def _person(server: RunningServer) -> Person:
    name = f"user{next(_numbers)}"
    await server.add_user(name)
    await server.add_repository(name, "demo")
    made = Person(server, name, await server.add_token(name), await server.add_key(name), "")
    work = made.git()
    await asyncio.to_thread(work, "init", "-q", ".")
    head = await asyncio.to_thread(work.commit, {"a": "1\n"})
    await asyncio.to_thread(work, "push", "-q", server.url(made.path), "main")
    return Person(server, name, made.token, made.key, head)


def _info_refs(path: str, service: str = "git-upload-pack") -> str:
    return f"/{path}.git/info/refs?service={service}"


# -- former addresses --------------------------------------------------------------------------------


async def _works_everywhere(person: Person, path: str, now_at: str, file: str) -> None:
    """Clones and pushes at `path` by both transports, and reads by REST, which names the new address."""
    server = person.server
    for number, url in enumerate((server.url(path), server.ssh_url(path))):
        git = person.git()
        await asyncio.to_thread(git, "clone", "-q", url, ".")
        await asyncio.to_thread(git.commit, {f"{file}{number}": "x\n"})
        await asyncio.to_thread(git, "push", "-q", "origin", "main")
    headers = person.logins()["token"]
    owner, name = path.split("/")
    below = f"/api/v1/repositories/models/{owner}/{name}"
    reply = await request(server.http, "GET", f"{below}/commits?path={file}0", headers)
    assert reply.status == 307, reply
    location = f"/api/v1/repositories/models/{now_at}/commits?path={file}0"
    assert reply.headers["Location"] == server.http + location
    assert (await request(server.http, "GET", location, headers)).status == 200


async def test_a_renamed_repository(person: Person, services: Services) -> None:
    new = parse_address(f"{person.name}/renamed")
    await services.repositories.move(SYSTEM, parse_address(person.path), new)
    await _works_everywhere(person, person.path, new.path, "first")
    newer = parse_address(f"{person.name}/again")
    await services.repositories.move(SYSTEM, new, newer)
    await _works_everywhere(person, person.path, newer.path, "second")
    await _works_everywhere(person, new.path, newer.path, "third")


async def test_a_transferred_repository(person: Person, services: Services) -> None:
    team = f"team{next(_numbers)}"
    await services.accounts.create_organisation(SYSTEM, team, owner=person.name)
    await services.repositories.move(SYSTEM, parse_address(person.path), parse_address(f"{team}/demo"))
    await _works_everywhere(person, person.path, f"{team}/demo", "x")


async def test_a_renamed_owner(person: Person, services: Services) -> None:
    new = f"{person.name}-new"
    await services.accounts.rename(SYSTEM, person.name, new)
    await _works_everywhere(person, person.path, f"{new}/demo", "x")
    reply = await request(person.server.http, "GET", _info_refs(person.path), person.logins()["password"])
    assert reply.status == 200, "the former name still logs in"


async def test_a_former_address_is_no_way_around_rights(person: Person, services: Services) -> None:
    stranger = await _person(person.server)
    await services.repositories.move(
        SYSTEM, parse_address(person.path), parse_address(f"{person.name}/secret")
    )
    headers = stranger.logins()["token"]
    server = person.server
    for path in (person.path, f"{person.name}/secret", f"{person.name}/never-there"):
        for service in ("git-upload-pack", "git-receive-pack"):
            reply = await request(server.http, "GET", _info_refs(path, service), headers)
            assert (reply.status, reply.text) == (404, "no such repository, or you may not see it\n")
        reply = await request(server.http, "GET", f"/api/v1/repositories/models/{path}", headers)
        assert reply.status == 404
        assert "Location" not in reply.headers
        async with ssh_client(server.ssh_port, stranger.key) as client:
            (await client.git("git-upload-pack", path)).refused("no such repository")


async def test_a_new_repository_takes_a_former_address(person: Person, services: Services) -> None:
    await services.repositories.move(
        SYSTEM, parse_address(person.path), parse_address(f"{person.name}/moved")
    )
    git = person.git()
    await asyncio.to_thread(git, "init", "-q", ".")
    tip = await asyncio.to_thread(git.commit, {"other": "x\n"})
    await person.server.add_repository(person.name, "demo")
    url = person.server.url(person.path)
    await asyncio.to_thread(git, "push", "-q", url, "main")
    assert (await asyncio.to_thread(git.refs, url))["refs/heads/main"] == tip
    moved = await asyncio.to_thread(git.refs, person.server.url(f"{person.name}/moved"))
    assert moved["refs/heads/main"] == person.head


# -- credentials -------------------------------------------------------------------------------------


@dataclass
class Open:
    """Connections that were logged in before something happened."""

    person: Person
    http: dict[str, RawConnection]
    ssh: SshClient

    async def statuses(self) -> dict[str, int]:
        """What each credential gets now, on the connection where it worked before."""
        found = {
            name: (await connection.request("GET", _info_refs(self.person.path), login)).status
            for (name, login), connection in zip(
                self.person.logins().items(), self.http.values(), strict=True
            )
        }
        said = await self.ssh.git("git-upload-pack", self.person.path)
        return {**found, "key on the old connection": said.status, "key": await _logs_in(self.person)}


async def _logs_in(person: Person) -> int:
    try:
        async with ssh_client(person.server.ssh_port, person.key):
            return 0
    except asyncssh.PermissionDenied:
        return 1


@asynccontextmanager
async def _opened(person: Person) -> AsyncIterator[Open]:
    """Logged in by every credential, each used twice, so that whatever may be remembered is."""
    async with AsyncExitStack() as stack:
        http = {
            name: await stack.enter_async_context(connected(person.server.http)) for name in person.logins()
        }
        ssh = await stack.enter_async_context(ssh_client(person.server.ssh_port, person.key))
        made = Open(person, http, ssh)
        for _ in range(2):
            assert await made.statuses() == _ALIVE
        yield made


_ALIVE = {
    "token": 200,
    "token for a password": 200,
    "password": 200,
    "key on the old connection": 0,
    "key": 0,
}
_DEAD = {"token": 401, "token for a password": 401, "password": 401, "key on the old connection": 1, "key": 1}


async def test_a_suspended_user_is_out_at_once(person: Person, services: Services) -> None:
    async with _opened(person) as connections:
        await services.accounts.suspend(SYSTEM, person.name)
        assert await connections.statuses() == _DEAD
        said = await connections.ssh.git("git-upload-pack", person.path)
        said.refused("this SSH key is not accepted any more")
        (await connections.ssh.run("")).refused("not accepted any more")
        await services.accounts.unsuspend(SYSTEM, person.name)
        assert await connections.statuses() == _ALIVE


async def test_a_deleted_user_is_out_at_once(person: Person, services: Services) -> None:
    """Also where everybody else may read."""
    other = await _person(person.server)
    async with _opened(person) as connections:
        to = parse_address(f"{other.name}/adopted")
        await services.repositories.move(SYSTEM, parse_address(person.path), to)
        await services.repositories.update(SYSTEM, to, visibility=Visibility.PUBLIC)
        await services.accounts.delete(SYSTEM, person.name)
        assert await connections.statuses() == _DEAD
    for login in person.logins().values():
        reply = await request(
            person.server.http, "GET", f"/{to.path}/info/refs?service=git-upload-pack", login
        )
        assert reply.status == 401
        assert (await request(person.server.http, "GET", "/api/v1/user", login)).status == 401


async def test_one_credential_ends_and_the_others_go_on(person: Person, services: Services) -> None:
    async with _opened(person) as connections:
        [token] = await services.keyring.tokens(SYSTEM, person.name)
        await services.keyring.revoke_token(SYSTEM, person.name, token.id)
        without_token = {**_ALIVE, "token": 401, "token for a password": 401}
        assert await connections.statuses() == without_token
        await services.keyring.set_password(SYSTEM, person.name, "another long password")
        without_password = {**without_token, "password": 401}
        assert await connections.statuses() == without_password
        [key] = await services.keyring.keys(SYSTEM, person.name)
        await services.keyring.remove_key(SYSTEM, person.name, key.id)
        assert await connections.statuses() == _DEAD


async def test_an_expired_token(person: Person, services: Services) -> None:
    secret = await person.server.add_token(person.name, scope=Scope.WRITE, days=1)
    login = {"Authorization": f"Bearer {secret}"}
    async with connected(person.server.http) as connection:
        assert (await connection.request("GET", _info_refs(person.path), login)).status == 200
        expired = update(AccessToken).where(AccessToken.expires_at.is_not(None))
        async with services.database.transaction() as session:
            await session.execute(expired.values(expires_at=now() - timedelta(seconds=1)))
        for target in (_info_refs(person.path), _info_refs(person.path, "git-receive-pack"), "/api/v1/user"):
            reply = await connection.request("GET", target, login)
            assert reply.status == 401
            assert b"expired on" in reply.body
            assert "WWW-Authenticate" in reply.headers


@pytest.mark.parametrize("scope", list(Scope))
async def test_a_token_for_one_repository(person: Person, services: Services, scope: Scope) -> None:
    for name, visibility in (("hidden", Visibility.PRIVATE), ("shown", Visibility.PUBLIC)):
        await person.server.add_repository(person.name, name, visibility=visibility)
    secret = await person.server.add_token(person.name, scope=scope, repository=person.path)
    login = {"Authorization": f"Bearer {secret}"}

    async def may(name: str) -> tuple[int, int, int]:
        """Fetching, pushing, and reading by REST."""
        targets = (
            _info_refs(f"{person.name}/{name}"),
            _info_refs(f"{person.name}/{name}", "git-receive-pack"),
            f"/api/v1/repositories/models/{person.name}/{name}",
        )
        replies = [await request(person.server.http, "GET", target, login) for target in targets]
        return replies[0].status, replies[1].status, replies[2].status

    assert await may("demo") == (200, 403 if scope is Scope.READ else 200, 200)
    assert await may("hidden") == (404, 404, 404)
    assert await may("shown") == (200, 403, 200)
    for target in ("/api/v1/users/{}/tokens", "/api/v1/users/{}/keys"):
        reply = await request(person.server.http, "GET", target.format(person.name), login)
        assert reply.status == 403, "it is good for nothing but its repository"
    to = parse_address(f"{person.name}/elsewhere")
    await services.repositories.move(SYSTEM, parse_address(person.path), to)
    assert (await may("elsewhere"))[0] == 200, "it follows its repository"
    await services.repositories.delete(SYSTEM, to)
    assert await may("shown") == await may("hidden") == (401, 401, 401), "and dies with it"


async def test_rights_that_are_taken_away_end_at_once(person: Person, services: Services) -> None:
    guest = await _person(person.server)
    address = parse_address(person.path)
    login = guest.logins()["token"]
    async with (
        connected(person.server.http) as http,
        ssh_client(person.server.ssh_port, guest.key) as ssh,
    ):

        async def may() -> tuple[int, int, int, int]:
            read = await http.request("GET", _info_refs(person.path), login)
            write = await http.request("GET", _info_refs(person.path, "git-receive-pack"), login)
            return (
                read.status,
                write.status,
                (await ssh.git("git-upload-pack", person.path)).status,
                (await ssh.git("git-receive-pack", person.path)).status,
            )

        assert await may() == (404, 404, 1, 1)
        await services.collaboration.set_collaborator(SYSTEM, address, guest.name, Role.WRITE)
        assert await may() == (200, 200, 0, 0)
        await services.collaboration.set_collaborator(SYSTEM, address, guest.name, Role.READ)
        assert await may() == (200, 403, 0, 1)
        await services.collaboration.remove_collaborator(SYSTEM, address, guest.name)
        assert await may() == (404, 404, 1, 1)
        await services.repositories.update(SYSTEM, address, visibility=Visibility.PUBLIC)
        assert await may() == (200, 403, 0, 1)
        await services.repositories.update(SYSTEM, address, visibility=Visibility.PRIVATE)
        assert await may() == (404, 404, 1, 1)


async def test_a_deleted_repository_is_gone_for_everybody(person: Person, services: Services) -> None:
    await services.repositories.delete(SYSTEM, parse_address(person.path))
    login = person.logins()["token"]
    for target in (_info_refs(person.path), f"/api/v1/repositories/models/{person.path}"):
        assert (await request(person.server.http, "GET", target, login)).status == 404
    async with ssh_client(person.server.ssh_port, person.key) as client:
        (await client.git("git-upload-pack", person.path)).refused("no such repository")
    # Its name is free, and the new one starts empty.
    git = person.git()
    await asyncio.to_thread(git, "init", "-q", ".")
    await asyncio.to_thread(git.commit, {"fresh": "x\n"})
    await asyncio.to_thread(git, "push", "-q", person.server.ssh_url(person.path), "main")
    again = await services.repositories.open(SYSTEM, parse_address(person.path), Permission.READ)
    refs = await asyncio.to_thread(git.refs, person.server.url(again.path))
    assert person.head not in refs.values()


async def test_a_push_under_way_when_its_user_is_suspended(person: Person, services: Services) -> None:
    """It was authorised when it began; nothing lands after the suspension."""
    pack = PackBuilder()
    tip = simple_commit(pack, parents=[person.head], content=b"late\n")
    body = push_request([(person.head, tip, "refs/heads/main")], pack.build())
    headers = {
        **person.logins()["token"],
        "Content-Type": "application/x-git-receive-pack-request",
        "Transfer-Encoding": "chunked",
    }
    async with connected(person.server.http) as connection:
        await connection.head("POST", f"/{person.path}/git-receive-pack", headers)
        await connection.send(chunked(body[:-40]).removesuffix(b"0\r\n\r\n"))
        await asyncio.sleep(0.3)
        await services.accounts.suspend(SYSTEM, person.name)
        await connection.send(chunked(body[-40:]))
        reply = await connection.reply()
    assert read_report(reply.body).refs == {"refs/heads/main": "this account is suspended or deleted"}
    await services.accounts.unsuspend(SYSTEM, person.name)
    refs = await asyncio.to_thread(person.git().refs, person.server.url(person.path))
    assert refs["refs/heads/main"] == person.head
