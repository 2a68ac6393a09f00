"""Files that only the server may read, made on the first run."""

import os
from pathlib import Path
from secrets import token_bytes, token_hex

from core.errors import SettingsError

_KEY_BYTES = 32


def ensure_private_directory(path: Path) -> None:
    """Makes the directory, for its owner only, if there is none; an existing one keeps its mode. Blocking.

    Raises:
        SettingsError: it cannot be made, or is not a directory that can be written to.
    """
    try:
        if not path.is_dir():
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.chmod(0o700)
    except OSError as error:
        raise SettingsError(f"cannot make the directory {path}: {error.strerror}") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise SettingsError(f"cannot write to the directory {path}")


def load_or_create_key(path: Path) -> bytes:
    """The 32 random bytes in `path`, made there when the file does not exist. Blocking.

    Several processes may start at once: all of them end up with the same key.

    Raises:
        SettingsError: the file cannot be read or made, or does not hold a key.
    """
    try:
        if not path.exists():
            _create(path, token_bytes(_KEY_BYTES))
        key = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"cannot use the key file {path}: {error.strerror}") from error
    if len(key) != _KEY_BYTES:
        raise SettingsError(f"the key file {path} is damaged: it must hold {_KEY_BYTES} bytes")
    return key


def _create(path: Path, key: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(key)
            file.flush()
            os.fsync(file.fileno())
        # A link, unlike a rename, fails when another process was first; then its key is the key.
        os.link(temporary, path)
    except FileExistsError:
        pass  # the caller reads the other process's key
    finally:
        temporary.unlink()
