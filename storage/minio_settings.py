"""What `[storage]` must say for MinIO."""

import re

from core.errors import SettingsError
from core.settings import StorageSettings
from storage.keys import check_key
from storage.protocol import MIN_PART_BYTES

_ENDPOINT = re.compile(r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]+)?")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def check_settings(settings: StorageSettings) -> None:
    """Raises `SettingsError` for what no server could accept; the message names the key."""
    if not _ENDPOINT.fullmatch(settings.endpoint):
        raise SettingsError("[storage] endpoint must be HOST:PORT; http or https is said by `secure`")
    if settings.public_endpoint and not _ENDPOINT.fullmatch(public_address(settings)[0]):
        raise SettingsError("[storage] public_endpoint must be HOST:PORT, or https://HOST:PORT")
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


def public_address(settings: StorageSettings) -> tuple[str, bool]:
    """HOST:PORT of the service as clients reach it, and whether by https.

    `public_endpoint` may say `http://` or `https://`, for a proxy in front that speaks TLS when the service
    does not; otherwise `secure` holds for both.
    """
    scheme, separator, host = settings.public_endpoint.rpartition("://")
    if separator and scheme in {"http", "https"}:
        return host, scheme == "https"
    return settings.public_endpoint or settings.endpoint, settings.secure
