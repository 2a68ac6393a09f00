"""What `[storage]` must say for MinIO."""

import re

from core.errors import SettingsError
from core.settings import StorageSettings
from storage.keys import check_key

MIN_PART_BYTES = 5 * 1024**2  # S3 refuses smaller parts

_ENDPOINT = re.compile(r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]+)?")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def check_settings(settings: StorageSettings) -> None:
    """Raises `SettingsError` for what no server could accept; the message names the key."""
    if not _ENDPOINT.fullmatch(settings.endpoint):
        raise SettingsError("[storage] endpoint must be HOST:PORT; http or https is said by `secure`")
    if not settings.access_key or not settings.secret_key:
        raise SettingsError("[storage] access_key and secret_key must be set for MinIO")
    if not _BUCKET.fullmatch(settings.bucket):
        raise SettingsError("[storage] bucket must be 3 to 63 lower-case letters, digits, `-` or `.`")
    if settings.part_bytes < MIN_PART_BYTES:
        raise SettingsError(f"[storage] part_bytes must be at least {MIN_PART_BYTES}")
    if settings.prefix:
        try:
            check_key(settings.prefix.rstrip("/"))
        except ValueError as error:
            raise SettingsError("[storage] prefix must be segments of A-Z a-z 0-9 . _ -") from error
