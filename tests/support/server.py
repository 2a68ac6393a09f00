"""The real server for tests: `modelyard serve` as a child process on ports of its own.

    with running_server(tmp_path) as server:              # or `async with`
        asyncio.run(server.add_user("ann"))               # `await` in an async test
        git = server.git(tmp_path, user="ann")            # the real client, with Ann's password
        git("clone", server.url("ann/demo"), "demo")

It starts on port 0 and keeps the ports it got over `restart`. Standard output and error go to files in the
data directory's parent; the log is JSON (`server.log()`). Rate limits are off unless `env` sets them.
"""

import asyncio
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlsplit

from core.access import SYSTEM
from core.models import ObjectFormat, RepositoryType, Scope, Visibility
from core.names import Address, parse_address
from core.repositories import RepositoryInfo
from core.settings import Settings, load_settings
from modelyard.services import Services, open_services
from modelyard.tls import write_self_signed
from tests.support import children
from tests.support.git import Git
from tests.support.processes import Seen, descendants, kill_tree, memory
from tests.support.program import PROJECT
from tests.support.ssh import ClientKey, make_key, ssh_program

PASSWORD = "correct horse battery staple"
_START_SECONDS = 90.0


def running_server(
    directory: Path,
    *,
    database_url: str = "",
    tls: bool = False,
    workers: int = 1,
    env: Mapping[str, str] | None = None,
) -> "RunningServer":
    """A server to be used in a `with` or `async with` block, which starts it and ends it.

    Args:
        directory: gets `data/`, the log and the certificate; one server per directory.
        database_url: of a database of its own; SQLite in the data directory when empty.
        tls: serve HTTPS with a certificate that `git` and `ssl_context` of the server trust.
        workers: above 1, a supervisor with that many children.
        env: settings as `MODELYARD_SECTION__KEY`, or `MODELYARD_FAILPOINT`.
    """
    return RunningServer(directory, database_url, tls, workers, dict(env or {}))


class RunningServer:
    """One server process with its data.

    Attributes:
        data: the data directory.
        http, ssh: the URLs of the ready file, as in `http://127.0.0.1:1234`, `ssh://git@127.0.0.1:1235`.
        pid: of the process that was started; with several workers, of their supervisor.
        process: the child itself.
        env: what is added to the environment at the next `start`.
    """

    def __init__(
        self, directory: Path, database_url: str, tls: bool, workers: int, env: dict[str, str]
    ) -> None:
        self.directory = directory
        self.data = directory / "data"
        self.env = env
        self.http = ""
        self.ssh = ""
        self.pid = 0
        self._database_url = database_url
        self._workers = workers
        self._listen = {"http": "127.0.0.1:0", "ssh": "127.0.0.1:0"}
        self._process: subprocess.Popen[bytes] | None = None
        self._keys: dict[str, ClientKey] = {}
        self.certificate = directory / "tls" / "cert.pem" if tls else None
        if self.certificate is not None:
            key = self.certificate.with_name("key.pem")
            write_self_signed(self.certificate, key, ["localhost", "127.0.0.1"])

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.start)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.stop)

    # -- the process ---------------------------------------------------------------------------------

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "the server does not run"
        return self._process

    @property
    def running(self) -> bool:
        """Whether the process that was started lives."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Starts the server on its data and waits until it is ready.

        Raises:
            AssertionError: it ended, or was not ready in time; the message has its output.
        """
        assert not self.running, "the server runs already"
        self.directory.mkdir(parents=True, exist_ok=True)
        ready = self.directory / "ready.json"
        command = [sys.executable, "-m", "modelyard", "serve", "--data", str(self.data)]
        command += ["--http", self._listen["http"], "--ssh", self._listen["ssh"]]
        command += ["--workers", str(self._workers), "--ready-file", str(ready)]
        with self._out.open("ab") as out, self._err.open("ab") as err:
            self._process = subprocess.Popen(
                command, cwd=PROJECT, env=self.environment(), stdin=subprocess.DEVNULL, stdout=out, stderr=err
            )
        children.keep(self._process.pid)
        deadline = time.monotonic() + _START_SECONDS
        while not self._read_ready(ready):
            if self._process.poll() is not None:
                raise AssertionError(f"the server ended with {self._process.returncode}:\n{self.log_text()}")
            if time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"the server was not ready in time:\n{self.log_text()}")
            time.sleep(0.01)

    def _read_ready(self, file: Path) -> bool:
        try:
            content = json.loads(file.read_text())
        except FileNotFoundError:
            return False
        if content["pid"] != self.process.pid:
            return False  # left by a killed one
        self.http, self.ssh, self.pid = content["http"], content["ssh"] or "", content["pid"]
        self._listen["http"] = urlsplit(self.http).netloc
        if self.ssh:
            self._listen["ssh"] = urlsplit(self.ssh).netloc.rpartition("@")[2]
        return True

    def stop(self, *, timeout: float = 60) -> int:
        """As `terminate`, and SIGKILL for what does not end; does nothing when it does not run."""
        if self._process is None:
            return 0
        try:
            return self.terminate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            return -signal.SIGKILL

    def terminate(self, *, timeout: float = 60) -> int:
        """SIGTERM; returns the exit status. Raises `subprocess.TimeoutExpired`."""
        if self.running:
            self.signal(signal.SIGTERM)
        return self.wait(timeout=timeout)

    def kill(self) -> None:
        """SIGKILL for the process and everything below it, like a power failure."""
        kill_tree(self.process.pid)
        self.wait(timeout=60)

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the process that was started."""
        self.process.send_signal(number)

    def wait(self, *, timeout: float = 60) -> int:
        """Waits until the process ended and returns its status, negative for a signal (failpoints: -9)."""
        process = self.process
        status = process.wait(timeout)
        children.release(process.pid)
        self._process = None
        return status

    def restart(self, *, env: Mapping[str, str] | None = None) -> None:
        """Ends it politely if it runs, and starts it again: same data and ports, new `env` if given."""
        if self._process is not None:
            self.stop()
        if env is not None:
            self.env = dict(env)
        self.start()

    def children(self) -> list[Seen]:
        """Every process below the server: workers, git."""
        return descendants(self.process.pid)

    def git_children(self) -> list[Seen]:
        """The git processes below the server."""
        return [
            child for child in self.children() if Path(child.command.split(" ")[0]).name.startswith("git")
        ]

    def rss_with_children(self, field: str = "Rss") -> int:
        """Resident bytes of the server and everything below it; `Pss` and `Anonymous` count no page twice."""
        return sum(
            memory(pid, field) for pid in [self.process.pid, *(child.pid for child in self.children())]
        )

    # -- what it says --------------------------------------------------------------------------------

    @property
    def _out(self) -> Path:
        return self.directory / "server.out"

    @property
    def _err(self) -> Path:
        return self.directory / "server.log"

    def log_text(self) -> str:
        """Standard error of all runs so far."""
        return self._err.read_text(errors="replace") if self._err.exists() else ""

    def log(self, event: str | None = None) -> list[dict[str, Any]]:
        """The lines of the log, or those of one event. What is no JSON is `{"raw": line}`."""
        lines = [_parse(line) for line in self.log_text().splitlines()]
        return [line for line in lines if event in (None, line.get("event"))]

    def printed(self) -> str:
        """Standard output of all runs so far."""
        return self._out.read_text()

    @property
    def admin_password(self) -> str:
        """What the first run printed for the user `admin`."""
        found = re.search(r"with the password (\S+)", self.printed())
        assert found, self.printed()
        return found[1]

    # -- clients -------------------------------------------------------------------------------------

    def url(self, path: str = "", *, user: str = "", secret: str = "") -> str:
        """The HTTP URL of a path, with credentials in it when given."""
        scheme, _, rest = self.http.partition("://")
        userinfo = f"{quote(user, safe='')}:{quote(secret, safe='')}@" if user or secret else ""
        return f"{scheme}://{userinfo}{rest}/{path.lstrip('/')}"

    def ssh_url(self, path: str) -> str:
        """The SSH URL of a repository."""
        return f"{self.ssh}/{path.lstrip('/')}"

    @property
    def ssh_port(self) -> int:
        port = urlsplit(self.ssh).port
        assert port is not None
        return port

    def git(self, cwd: Path, *, user: str = "", secret: str = PASSWORD, key: ClientKey | None = None) -> Git:
        """The real git client; over HTTP it logs in as `user`, over SSH with `key` or the key of `user`."""
        config = {"safe.directory": "*"}
        if user:
            config[f"credential.{self.http}.helper"] = (
                f"!f() {{ echo username={user}; echo 'password={secret}'; }}; f"
            )
        if self.certificate is not None:
            config["http.sslCAInfo"] = str(self.certificate)
        key = key or self._keys.get(user)
        command = ssh_program(self.ssh_port, *([key] if key else [])) if self.ssh else ["false"]
        return Git(cwd, config, {"GIT_SSH_COMMAND": " ".join(command), "GIT_SSH_VARIANT": "ssh"})

    def ssl_context(self) -> ssl.SSLContext | None:
        """For clients in Python: trusts the server's certificate; None over plain HTTP."""
        return ssl.create_default_context(cafile=self.certificate) if self.certificate else None

    # -- accounts and repositories, straight in the database, as the administration commands do ------

    def environment(self) -> dict[str, str]:
        """The whole environment of the server, and of `modelyard` commands on the same data."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("MODELYARD_")}
        ours = {
            "PYTHONPATH": str(PROJECT),
            "PYTHONWARNINGS": "error",
            # Compiled once for all servers of all tests, even where writing bytecode is switched off.
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONPYCACHEPREFIX": str(PROJECT / ".cache" / "pycache"),
            "MODELYARD_SERVER__LOG_FORMAT": "json",
            "MODELYARD_HTTP__REQUESTS_PER_MINUTE": "0",
            "MODELYARD_HTTP__ANONYMOUS_REQUESTS_PER_MINUTE": "0",
        }
        if self._database_url:
            ours["MODELYARD_DATABASE__URL"] = self._database_url
        if self.certificate is not None:
            ours["MODELYARD_HTTP__CERT"] = str(self.certificate)
            ours["MODELYARD_HTTP__KEY"] = str(self.certificate.with_name("key.pem"))
        return {**inherited, **ours, **self.env}

    @property
    def settings(self) -> Settings:
        """What the server runs with."""
        environ = {name: value for name, value in self.environment().items() if name.startswith("MODELYARD_")}
        return load_settings(environ=environ, overrides={"server": {"data": str(self.data)}})

    @asynccontextmanager
    async def services(self) -> AsyncIterator[Services]:
        """The server's services in this process, on the same database, store and cache."""
        async with open_services(self.settings) as services:
            yield services

    async def add_user(self, name: str, *, password: str | None = PASSWORD, admin: bool = False) -> None:
        """A user who logs in with `password`."""
        async with self.services() as services:
            await services.accounts.create_user(SYSTEM, name, password=password, is_admin=admin)

    async def add_token(
        self, user: str, *, scope: Scope = Scope.ADMIN, repository: str | None = None, days: int | None = None
    ) -> str:
        """A new access token, by its secret."""
        async with self.services() as services:
            secret, _ = await services.keyring.mint_token(
                SYSTEM,
                user,
                "test",
                scope,
                repository=parse_address(repository) if repository else None,
                expires_in_days=days,
            )
            return secret

    async def add_key(self, user: str) -> ClientKey:
        """A new SSH key of the user, which `git` then uses for them."""
        key = await asyncio.to_thread(make_key, self.directory, f"{user}-{len(self._keys)}")
        async with self.services() as services:
            await services.keyring.add_key(SYSTEM, user, key.public)
        self._keys[user] = key
        return key

    async def add_repository(
        self,
        owner: str,
        name: str,
        *,
        type: RepositoryType = RepositoryType.MODEL,  # noqa: A002 - as it is called everywhere
        visibility: Visibility = Visibility.PRIVATE,
        object_format: ObjectFormat = ObjectFormat.SHA1,
    ) -> RepositoryInfo:
        """A new, empty repository."""
        async with self.services() as services:
            return await services.repositories.create(
                SYSTEM, Address(type, owner, name), visibility=visibility, object_format=object_format
            )


def _parse(line: str) -> dict[str, Any]:
    try:
        parsed = json.loads(line)
    except ValueError:
        return {"raw": line}
    return parsed if isinstance(parsed, dict) else {"raw": line}
