"""`git-lfs-transfer` in one process: the real services, the SSH face over them, and several people's keys."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncssh
from sqlalchemy import func, select

from core.access import SYSTEM
from core.models import LfsLink, LfsObject, Role
from core.names import parse_address
from core.settings import load_settings
from modelyard.services import Services, open_services
from sshd.large_files import LfsCommands
from sshd.lfs_authenticate import HttpFace
from sshd.server import SshServer
from tests.support.lfs_talk import Talk, talk
from tests.support.ssh import ClientKey
from tests.support.ssh_client import Said, SshClient
from tests.support.streams import list_keys

PEOPLE = ("ada", "bob", "carol", "deploy", "reader")
MODEL, SECRET = "ada/model", "carol/secret"
MAX_OBJECTS = 20
# The largest object, so that refusing more can be tried.
MAX_BYTES = 8 * 1024 * 1024


@dataclass
class LfsSshWorld:
    """ada owns `ada/model`, bob may write there, `reader` and `deploy` are keys of it; carol is elsewhere."""

    services: Services
    server: SshServer
    people: dict[str, ClientKey]
    stack: AsyncExitStack

    async def connect(self, who: str) -> asyncssh.SSHClientConnection:
        connection = asyncssh.connect(
            "127.0.0.1",
            self.server.port,
            username="git",
            client_keys=[str(self.people[who].file)],
            agent_path=None,
            known_hosts=None,
            config=None,
        )
        return await self.stack.enter_async_context(connection)

    async def talk(self, who: str, operation: str, path: str = MODEL, *, agree: bool = True) -> Talk:
        connection = await self.connect(who)
        return await self.stack.enter_async_context(talk(connection, path, operation, agree=agree))

    async def run(self, who: str, line: str) -> Said:
        return await SshClient(await self.connect(who)).run(line)

    async def stored(self) -> tuple[int, int, list[str]]:
        """How many objects, links and keys there are."""
        async with self.services.database.read() as session:
            objects = await session.scalar(select(func.count()).select_from(LfsObject))
            links = await session.scalar(select(func.count()).select_from(LfsLink))
        await self.services.large_files.uploads.settle()
        return objects or 0, links or 0, await list_keys(self.services.store, "lfs/")


@asynccontextmanager
async def open_world(
    database_url: str, people: dict[str, ClientKey], folder: Path
) -> AsyncIterator[LfsSshWorld]:
    """Servers, users and repositories; `people` are the keys of `PEOPLE`."""
    settings = load_settings(
        environ={},
        overrides={
            "server": {"data": str(folder / "data")},
            "database": {"url": database_url},
            "lfs": {"max_batch_objects": MAX_OBJECTS, "max_object_bytes": MAX_BYTES},
            "ssh": {"listen": "127.0.0.1:0"},
        },
    )
    async with open_services(settings) as services:
        for name in ("ada", "bob", "carol"):
            await services.accounts.create_user(SYSTEM, name)
            await services.keyring.add_key(SYSTEM, name, people[name].public)
        for path in (MODEL, SECRET):
            await services.repositories.create(SYSTEM, parse_address(path))
        sharing, model = services.collaboration, parse_address(MODEL)
        await sharing.set_collaborator(SYSTEM, model, "bob", Role.WRITE)
        await sharing.add_deploy_key(SYSTEM, model, people["deploy"].public, read_only=False)
        await sharing.add_deploy_key(SYSTEM, model, people["reader"].public)
        server = SshServer(
            settings.ssh,
            services.repositories,
            services.credentials,
            services.git,
            LfsCommands(
                services.large_files.service, HttpFace("", "http", 8080), max_batch_objects=MAX_OBJECTS
            ),
            folder / "host_key",
        )
        await server.start()
        async with AsyncExitStack() as stack:
            yield LfsSshWorld(services, server, people, stack)
        await server.close()
