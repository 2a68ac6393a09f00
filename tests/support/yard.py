"""A running server with one user, for suites that need many repositories and one server."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from core.models import ObjectFormat
from tests.support.git import Git
from tests.support.server import PASSWORD, RunningServer
from tests.support.ssh import ClientKey, ssh_command
from tests.support.wire import Answer, http_post, ssh_exchange

USER = "ann"


@dataclass
class Yard:
    """One server, its user `ann` with password and key, and a folder for clients."""

    server: RunningServer
    folder: Path
    key: ClientKey
    secret: str = PASSWORD
    _numbers: "count[int]" = field(default_factory=count)

    @classmethod
    async def open(cls, server: RunningServer, folder: Path) -> "Yard":
        """Adds the user to a running server. Logs in by token, which costs no Argon2 per request."""
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        await server.add_user(USER)
        key = await server.add_key(USER)
        return cls(server, folder, key, await server.add_token(USER))

    @property
    def data(self) -> Path:
        """The server's data directory."""
        return self.server.data

    def new_folder(self) -> Path:
        """An empty folder for a client."""
        path = self.folder / f"work{next(self._numbers)}"
        path.mkdir()
        return path

    async def new_repository(self, object_format: ObjectFormat = ObjectFormat.SHA1) -> str:
        """A new, empty repository by its path, as in `ann/r1`."""
        name = f"r{next(self._numbers)}"
        await self.server.add_repository(USER, name, object_format=object_format)
        return f"{USER}/{name}"

    def git(self, cwd: Path) -> Git:
        """The real client as ann, over both transports."""
        return self.server.git(cwd, user=USER, secret=self.secret, key=self.key)

    def url(self, path: str) -> str:
        """The HTTP address with ann's credentials in it."""
        return self.server.url(f"{path}.git", user=USER, secret=self.secret)

    def ssh_url(self, path: str) -> str:
        """The SSH address."""
        return self.server.ssh_url(f"{path}.git")

    async def post(
        self,
        path: str,
        service: str,
        body: bytes,
        *,
        length: int | None = None,
        headers: Sequence[tuple[str, str]] = (),
        linger: bool = True,
    ) -> Answer:
        """POSTs raw bytes to a Git service."""
        return await http_post(
            self.server.url(f"{path}.git"),
            service,
            body,
            user=USER,
            password=self.secret,
            length=length,
            headers=headers,
            linger=linger,
        )

    async def ssh_raw(self, command: str, body: bytes, *, half_close: bool = True) -> Answer:
        """Runs a command over SSH and sends raw bytes behind the advertisement."""
        argv = [*ssh_command(self.server.ssh_port, self.key), command]
        return await ssh_exchange(argv, body, half_close=half_close)

    async def quiet(self, *, seconds: float = 30) -> None:
        """Waits until no git child and no quarantine is left; fails when some stay."""
        quarantine = self.data / "cache" / "quarantine"
        deadline = time.monotonic() + seconds
        while True:
            left = [child.command for child in self.server.git_children()]
            left += [str(path) for path in quarantine.iterdir()] if quarantine.is_dir() else []
            if not left:
                return
            assert time.monotonic() < deadline, f"left behind: {left}"
            await asyncio.sleep(0.02)
