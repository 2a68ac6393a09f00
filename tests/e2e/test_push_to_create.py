"""A push to an address that does not exist: when it creates the repository, which kind, and for whom."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from core.access import SYSTEM
from core.models import Role, Scope
from core.names import parse_address
from core.repositories import RepositoryInfo
from tests.support.git import Git, Result
from tests.support.raw_http import Reply, request
from tests.support.server import RunningServer, running_server
from tests.support.ssh import ClientKey, make_key
from tests.support.ssh_client import ssh_client
from tests.support.yard import Yard

_PREFIXES = {"": "", "models/": "", "datasets/": "datasets/"}


@dataclass
class Home:
    """A server with ann, who may write to `writers`, read `readers` and own nothing of bob's."""

    policy: str
    yard: Yard
    work: Git
    head: str
    deploy_key: ClientKey

    @property
    def server(self) -> RunningServer:
        return self.yard.server

    async def find(self, path: str) -> RepositoryInfo | None:
        """The repository at exactly this path."""
        async with self.server.services() as services:
            everything = await services.repositories.list_visible(SYSTEM, limit=1000)
        return next((one for one in everything if one.path == path), None)

    async def push(self, transport: str, path: str) -> Result:
        url = self.server.url(path) if transport == "http" else self.server.ssh_url(path)
        return await asyncio.to_thread(self.work.run, "push", "-q", url, "main")

    async def knock(self, path: str, secret: str | None) -> Reply:
        """What a push asks first; with a bearer token, or as nobody."""
        headers = {"Authorization": f"Bearer {secret}"} if secret else {}
        target = f"/{path}.git/info/refs?service=git-receive-pack"
        return await request(self.server.http, "GET", target, headers)


@pytest.fixture(scope="module", params=["off", "private", "public"])
def home(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    folder = tmp_path_factory.mktemp(request.param)
    env = {"MODELYARD_REPOSITORIES__PUSH_TO_CREATE": request.param}
    with running_server(folder / "server", env=env) as server:
        yield asyncio.run(_open(request.param, server))


async def _open(policy: str, server: RunningServer) -> Home:
    yard = await Yard.open(server, server.directory / "clients")
    await server.add_user("bob", password=None)
    key = await asyncio.to_thread(make_key, server.directory, "deploy")
    there = await server.add_repository("ann", "there")
    async with server.services() as services:
        for name, role in (("writers", Role.WRITE), ("readers", Role.READ)):
            await services.accounts.create_organisation(SYSTEM, name, owner="bob")
            await services.organisations.set_member(SYSTEM, name, "ann", role)
        await services.collaboration.add_deploy_key(SYSTEM, there.address, key.public, read_only=False)
    work = yard.git(yard.new_folder())
    await asyncio.to_thread(work, "init", "-q", ".")
    head = await asyncio.to_thread(work.commit, {"a": "1\n"})
    return Home(policy, yard, work, head, key)


@pytest.mark.parametrize("prefix", list(_PREFIXES))
@pytest.mark.parametrize("transport", ["http", "ssh"])
@pytest.mark.parametrize("owner", ["ann", "writers"])
async def test_own_name_and_own_organisation(home: Home, owner: str, transport: str, prefix: str) -> None:
    name = f"{transport}-{prefix.rstrip('/') or 'plain'}"
    done = await home.push(transport, f"{prefix}{owner}/{name}.git")
    found = await home.find(f"{_PREFIXES[prefix]}{owner}/{name}")
    if home.policy == "off":
        assert done.status != 0
        assert "no such repository" in done.output
        assert found is None
        return
    assert done.status == 0, done
    assert found is not None
    assert found.visibility == home.policy
    assert found.address.type == parse_address(f"{prefix}{owner}/{name}").type
    refs = await asyncio.to_thread(home.work.refs, home.server.url(f"{prefix}{owner}/{name}"))
    assert refs == {"HEAD": home.head, "refs/heads/main": home.head}
    seen = await request(home.server.http, "GET", f"/{found.path}/info/refs?service=git-upload-pack")
    assert seen.status == (200 if home.policy == "public" else 401), "anybody may read what is public"


@pytest.mark.parametrize("transport", ["http", "ssh"])
@pytest.mark.parametrize(
    "path",
    ["bob/x", "datasets/bob/x", "readers/x", "nobody-here/x", "login/x", "datasets/x", "admin/x", "ann/x/y"],
)
async def test_where_one_may_not(home: Home, transport: str, path: str) -> None:
    """In the same words as for what exists and is hidden."""
    done = await home.push(transport, path)
    assert done.status != 0
    assert "no such repository" in done.output, done
    assert await home.find(path) is None


@pytest.mark.parametrize("transport", ["http", "ssh"])
@pytest.mark.parametrize("name", ["settings", "x.lock", "x.git.git", "api", "x..y"])
async def test_names_that_cannot_be(home: Home, transport: str, name: str) -> None:
    done = await home.push(transport, f"ann/{name}")
    assert done.status != 0
    wanted = ["no such repository"] if home.policy == "off" else ["no such repository", "is reserved"]
    assert any(text in done.output for text in wanted), done
    assert await home.find(f"ann/{name}") is None


@pytest.mark.parametrize("scope", list(Scope))
async def test_scopes_of_tokens(home: Home, scope: Scope) -> None:
    path = f"ann/by-{scope}"
    reply = await home.knock(path, await home.server.add_token("ann", scope=scope))
    created = home.policy != "off" and scope is not Scope.READ
    assert reply.status == (200 if created else 404), reply
    assert (await home.find(path) is not None) is created


async def test_tokens_and_keys_for_one_repository(home: Home) -> None:
    token = await home.server.add_token("ann", scope=Scope.ADMIN, repository="ann/there")
    assert (await home.knock("ann/elsewhere", token)).status == 404
    assert (await home.knock("ann/there", token)).status == 200
    async with ssh_client(home.server.ssh_port, home.deploy_key) as client:
        (await client.git("git-receive-pack", "ann/elsewhere")).refused("no such repository")
        assert (await client.git("git-receive-pack", "ann/there")).status == 0
    assert await home.find("ann/elsewhere") is None


async def test_nobody_and_the_site_administrator(home: Home) -> None:
    assert (await home.knock("ann/anonymous", None)).status == 401
    assert await home.find("ann/anonymous") is None
    if not await home.find("bob/by-chief"):
        await home.server.add_user("chief", password=None, admin=True)
    reply = await home.knock("bob/by-chief", await home.server.add_token("chief"))
    assert reply.status == (404 if home.policy == "off" else 200)


async def test_reading_creates_nothing(home: Home) -> None:
    for address in (home.server.url("ann/unread"), home.server.ssh_url("ann/unread")):
        done = await asyncio.to_thread(home.work.run, "ls-remote", address)
        assert "no such repository" in done.output
    async with ssh_client(home.server.ssh_port, home.yard.key) as client:
        (await client.git("git-upload-archive", "ann/unread")).refused("no such repository")
    assert await home.find("ann/unread") is None


async def test_the_same_name_as_model_and_as_dataset(home: Home) -> None:
    creates = home.policy != "off"
    for path in ("ann/twin", "datasets/ann/twin"):
        assert ((await home.push("http", path)).status == 0) is creates
        assert (await home.find(path) is not None) is creates
    if not creates:
        return
    model, dataset = await home.find("ann/twin"), await home.find("datasets/ann/twin")
    assert model is not None
    assert dataset is not None
    assert model.id != dataset.id


async def test_many_at_once_create_one(home: Home) -> None:
    """Eight first pushes of eight branches: one repository, and every branch is in it."""
    creates = home.policy != "off"
    url = home.server.url("ann/crowded")
    pushes = (
        asyncio.to_thread(home.work.run, "push", "-q", url, f"main:refs/heads/b{number}")
        for number in range(8)
    )
    for done in await asyncio.gather(*pushes):
        assert (done.status == 0) is creates, done
    if creates:
        refs = await asyncio.to_thread(home.work.refs, url)
        assert {f"refs/heads/b{number}" for number in range(8)} == {name for name in refs if name != "HEAD"}
