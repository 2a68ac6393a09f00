"""The SSH face over the real accounts, keys and repositories, on every database: who may reach what."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from core.access import SYSTEM, Permission
from core.accounts import Accounts
from core.collaboration import Collaboration
from core.credentials import Credentials
from core.database import Database
from core.errors import RepositoryNotFound
from core.keyring import Keyring
from core.models import Role, Visibility
from core.names import Address, parse_address
from core.repositories import Repositories
from core.settings import AuthSettings, RepositorySettings, SshSettings
from sshd.server import SshServer
from tests.support.ssh import ClientKey, Outcome, make_key, run_ssh, ssh_command
from tests.support.ssh_server import Call, ScriptedGit, ScriptedLargeFiles

PUBLIC = parse_address("ada/open")
PRIVATE = parse_address("ada/closed")


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ClientKey]:
    directory = tmp_path_factory.mktemp("people")
    names = ("ada", "bob", "carol", "deploy_read", "deploy_write")
    return {name: make_key(directory, name) for name in names}


@dataclass
class World:
    """A server over a real database: ada owns, bob reads what is private, carol is a stranger."""

    accounts: Accounts
    keyring: Keyring
    collaboration: Collaboration
    repositories: Repositories
    git: ScriptedGit
    server: SshServer
    people: dict[str, ClientKey]

    async def run(self, who: str, line: str) -> Outcome:
        return await run_ssh([*ssh_command(self.server.port, self.people[who]), line])


@pytest.fixture
async def world(database: Database, people: dict[str, ClientKey], tmp_path: Path) -> AsyncIterator[World]:
    auth = AuthSettings()
    accounts, keyring = Accounts(database, auth), Keyring(database, auth)
    collaboration = Collaboration(database, auth)
    repositories = Repositories(database, RepositorySettings(), auth)
    for name in ("ada", "bob", "carol"):
        await accounts.create_user(SYSTEM, name)
        await keyring.add_key(SYSTEM, name, people[name].public)
    await repositories.create(SYSTEM, PUBLIC, visibility=Visibility.PUBLIC)
    await repositories.create(SYSTEM, PRIVATE, visibility=Visibility.PRIVATE)
    await collaboration.set_collaborator(SYSTEM, PRIVATE, "bob", Role.READ)
    await collaboration.add_deploy_key(SYSTEM, PRIVATE, people["deploy_read"].public)
    await collaboration.add_deploy_key(SYSTEM, PRIVATE, people["deploy_write"].public, read_only=False)
    git = ScriptedGit()
    settings = SshSettings(listen="127.0.0.1:0")
    server = SshServer(
        settings,
        repositories,
        Credentials(database, auth),
        git,
        ScriptedLargeFiles(),
        tmp_path / "host_key",
    )
    await server.start()
    yield World(accounts, keyring, collaboration, repositories, git, server, people)
    await server.close()


MATRIX = [
    ("ada", "git-upload-pack", PRIVATE, True),
    ("ada", "git-receive-pack", PRIVATE, True),
    ("ada", "git-upload-archive", PRIVATE, True),
    ("bob", "git-upload-pack", PRIVATE, True),
    ("bob", "git-receive-pack", PRIVATE, False),
    ("carol", "git-upload-pack", PUBLIC, True),
    ("carol", "git-receive-pack", PUBLIC, False),
    ("carol", "git-upload-pack", PRIVATE, False),
    ("carol", "git-upload-archive", PRIVATE, False),
    ("carol", "git-receive-pack", PRIVATE, False),
    ("deploy_read", "git-upload-pack", PRIVATE, True),
    ("deploy_read", "git-receive-pack", PRIVATE, False),
    ("deploy_write", "git-receive-pack", PRIVATE, True),
    ("deploy_write", "git-receive-pack", PUBLIC, False),
]


async def test_rights_are_those_of_the_key(world: World) -> None:
    for who, service, address, allowed in MATRIX:
        world.git.calls.clear()
        outcome = await world.run(who, f"{service} '/{address.path}.git'")
        case = (who, service, address.path, outcome)
        assert (outcome.status == 0) is allowed, case
        assert bool(world.git.calls) is allowed, case
        assert allowed or outcome.err.startswith("modelyard: "), case


async def test_what_one_may_not_see_looks_like_what_does_not_exist(world: World) -> None:
    hidden = await world.run("carol", f"git-upload-pack {PRIVATE.path}")
    absent = await world.run("carol", "git-upload-pack ada/absent")
    assert hidden.err == absent.err
    assert hidden.status == absent.status == 1


async def test_a_push_creates_for_its_owner_only(world: World) -> None:
    assert (await world.run("carol", "git-receive-pack carol/fresh")).status == 0
    assert world.git.calls == [Call("receive", "carol/fresh", 0, "carol")]
    made = await world.repositories.open(SYSTEM, parse_address("carol/fresh"), Permission.READ)
    assert made.visibility is Visibility.PRIVATE
    assert (await world.run("carol", "git-receive-pack ada/fresh")).status == 1
    with pytest.raises(RepositoryNotFound):
        await world.repositories.open(SYSTEM, parse_address("ada/fresh"), Permission.READ)


async def test_a_renamed_repository_answers_at_its_old_address(world: World) -> None:
    await world.repositories.move(SYSTEM, PRIVATE, Address(PRIVATE.type, "ada", "renamed"))
    assert (await world.run("ada", f"git-upload-pack {PRIVATE.path}")).status == 0
    assert world.git.calls == [Call("upload", "ada/renamed", 0)]


@pytest.mark.parametrize("end", ["suspend", "delete", "remove_key"])
async def test_keys_die_at_once_with_their_user(world: World, tmp_path: Path, end: str) -> None:
    sharing = ("-o", f"ControlPath={tmp_path / 's'}", "-o", "ControlMaster=auto", "-o", "ControlPersist=60")
    shared = ssh_command(world.server.port, world.people["carol"], options=sharing)
    try:
        assert (await run_ssh([*shared, "git-upload-pack ada/open"])).status == 0
        if end == "suspend":
            await world.accounts.suspend(SYSTEM, "carol")
        elif end == "delete":
            await world.accounts.delete(SYSTEM, "carol")
        else:
            (key,) = await world.keyring.keys(SYSTEM, "carol")
            await world.keyring.remove_key(SYSTEM, "carol", key.id)
        refused = await run_ssh([*shared, "git-upload-pack ada/open"])
        assert (refused.status, refused.err) == (1, "modelyard: this SSH key is not accepted any more\n")
        assert "Permission denied (publickey)" in (await world.run("carol", "git-upload-pack ada/open")).err
    finally:
        await run_ssh([*ssh_command(world.server.port, options=(*sharing, "-O", "exit"))])


async def test_the_greeting_names_the_account(world: World) -> None:
    outcome = await run_ssh([*ssh_command(world.server.port, world.people["bob"]), "-T"])
    assert outcome.err.startswith("Hi bob! ")
