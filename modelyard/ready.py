"""How the server says that it is ready: to people, and to programs through a file."""

import json
import os
import sys
from pathlib import Path
from secrets import token_hex

import structlog

from core.errors import SettingsError
from core.settings import Settings
from modelyard.bootstrap import ADMINISTRATOR
from modelyard.listening import Endpoints

log = structlog.get_logger(__name__)


class ReadyFile:
    """A file that exists while the server accepts connections: `{"http": URL, "ssh": URL, "pid": N}`."""

    def __init__(self, path: Path | None) -> None:
        """Removes what a killed server left there. Raises `SettingsError` when it cannot."""
        self._path = path.absolute() if path else None
        try:
            self.remove()
        except OSError as error:
            raise SettingsError(f"cannot use the ready file {path}: {error.strerror}") from error

    def write(self, endpoints: Endpoints) -> None:
        """Makes the file appear, complete. Raises `SettingsError` when it cannot be written."""
        if self._path is None:
            return
        content = {"http": endpoints.http, "ssh": endpoints.ssh or None, "pid": os.getpid()}
        temporary = self._path.with_name(f".{self._path.name}.{token_hex(4)}")
        try:
            temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")
            temporary.rename(self._path)
        except OSError as error:
            raise SettingsError(f"cannot write the ready file {self._path}: {error.strerror}") from error

    def remove(self) -> None:
        """Takes the file away, if there is one."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def announce(settings: Settings, endpoints: Endpoints, password: str | None) -> None:
    """Tells the person at the terminal where the server is, and, once, the administrator's password."""
    lines = ["Modelyard is ready.", f"  Git and REST  {endpoints.http}"]
    if endpoints.ssh:
        lines.append(f"  Git by SSH    {endpoints.ssh}")
    lines.append(f"  data          {settings.data_dir}")
    if password is not None:
        lines.append(f"  log in as     {ADMINISTRATOR}, with the password {password}")
        lines.append("                It is shown this once; change it with `modelyard user password admin`.")
    try:
        # Straight to the terminal: what is printed here must never pass through the log.
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()
    except OSError as error:
        log.warning("could not print the addresses", reason=error.strerror)
