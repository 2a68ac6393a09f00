"""The key that proves this server to its clients: Ed25519, made on the first run, kept in one file."""

import os
import secrets
from pathlib import Path

import asyncssh
import structlog

from core.errors import SettingsError

log = structlog.get_logger(__name__)


def load_or_create(path: Path) -> asyncssh.SSHKey:
    """The host key in `path`; made there, readable by its owner only, when the file does not exist.

    Several processes may start at once: all of them end up with the same key. Blocking.

    Raises:
        SettingsError: the file cannot be read or written, or holds no private key without a passphrase.
    """
    try:
        if not path.exists():
            _create(path)
        if path.stat().st_mode & 0o077:
            log.warning("ssh host key is accessible to others", path=str(path), remedy="chmod 600")
        return asyncssh.read_private_key(path)
    except OSError as error:
        raise SettingsError(f"SSH host key {path}: {error.strerror}") from error
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        raise SettingsError(f"SSH host key {path}: not a private key without a passphrase") from error


def fingerprint(path: Path) -> str:
    """What clients are shown to compare, as in `SHA256:…`; makes the key if there is none. Blocking.

    Raises:
        SettingsError: as `load_or_create`.
    """
    return load_or_create(path).get_fingerprint()


def _create(path: Path) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519", comment="modelyard")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(key.export_private_key("openssh"))
            file.flush()
            os.fsync(file.fileno())
        # A link, unlike a rename, fails when another process was first; then its key is the key.
        os.link(temporary, path)
    except FileExistsError:
        log.info("ssh host key was made by another process", path=str(path))
    finally:
        temporary.unlink()
    _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
