"""Settings: frozen, typed, read once.

Order of precedence, weakest first: the defaults below, the TOML file, `MODELYARD_SECTION__KEY` in the
environment, command-line options. An unknown section or key is an error that names it, so that a typing
mistake never silently means "default". `config.toml` at the top of the repository documents every key; a
test holds the two together.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from core.errors import SettingsError

ENVIRONMENT_PREFIX = "MODELYARD_"

# No settings: what the program itself reads before or beside them, and what it tells the operator's hook
# programs, which may call it.
RESERVED_ENVIRONMENT = frozenset(
    f"{ENVIRONMENT_PREFIX}{name}"
    for name in "FAILPOINT CONFIG REPOSITORY REPOSITORY_ID ACTOR TRANSPORT PUSH_ID".split()
)


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every section."""


class ServerSettings(Section, frozen=True):
    """What all faces share."""

    data: str = "./data"
    workers: int = 1
    drain_seconds: int = 30
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "console"] = "auto"


class HttpSettings(Section, frozen=True):
    """The HTTP(S) face."""

    listen: str = "127.0.0.1:8080"
    public_url: str = ""
    cert: str = ""
    key: str = ""
    trusted_proxies: tuple[str, ...] = ()
    max_json_bytes: int = 4 * 1024 * 1024
    idle_seconds: int = 75
    requests_per_minute: int = 1200
    anonymous_requests_per_minute: int = 300


class SshSettings(Section, frozen=True):
    """The SSH face."""

    enabled: bool = True
    listen: str = "127.0.0.1:2222"
    public_host: str = ""
    host_key: str = ""
    max_connections: int = 200
    max_connections_per_address: int = 40
    max_sessions_per_connection: int = 16
    login_seconds: int = 30
    idle_seconds: int = 600


class DatabaseSettings(Section, frozen=True):
    """Where the truth about refs, rights and packs is kept."""

    url: str = ""
    pool_size: int = 10
    busy_seconds: int = 15
    migrate: bool = True


class StorageSettings(Section, frozen=True):
    """The object store: where bytes live."""

    kind: Literal["local", "minio"] = "local"
    path: str = ""
    endpoint: str = ""
    public_endpoint: str = ""
    region: str = "us-east-1"
    bucket: str = "modelyard"
    prefix: str = ""
    access_key: str = ""
    secret_key: str = ""
    secure: bool = True
    part_bytes: int = 16 * 1024 * 1024


class GitSettings(Section, frozen=True):
    """The Git engine and its limits."""

    executable: str = "git"
    cache: str = ""
    max_pack_bytes: int = 8 * 1024**3
    max_object_bytes: int = 2 * 1024**3
    max_commands: int = 10_000
    max_request_bytes: int = 16 * 1024**2
    receive_seconds: int = 6 * 3600
    upload_seconds: int = 6 * 3600
    keepalive_seconds: float = 5.0
    strict: bool = True
    concurrent_receives: Annotated[int, msgspec.Meta(ge=1)] = 16
    concurrent_uploads: Annotated[int, msgspec.Meta(ge=1)] = 64
    clone_cache_bytes: int = 4 * 1024**3


# With 0 places everybody would wait for ever, and with 0 days uploads would be dropped while they go on.
_Positive = Annotated[int, msgspec.Meta(ge=1)]
_Natural = Annotated[int, msgspec.Meta(ge=0)]


class LfsSettings(Section, frozen=True):
    """Large files: how they travel, how much, and when they may go."""

    transfer: Literal["auto", "proxy", "redirect"] = "auto"
    store: Literal["", "local", "minio"] = ""
    max_object_bytes: _Natural = 5 * 1024**4
    max_batch_objects: _Positive = 1000
    # git-lfs takes a link for expired 5 seconds before its end.
    link_seconds: Annotated[int, msgspec.Meta(ge=6)] = 3600
    slowest_bytes_per_second: _Positive = 256 * 1024
    multipart_bytes: _Natural = 100 * 1024**2
    part_bytes: _Positive = 32 * 1024**2
    upload_days: _Positive = 7
    concurrent_transfers: _Positive = 64
    requests_per_minute: _Natural = 3000
    quota_bytes: _Natural = 0
    missing_objects: Literal["refuse", "allow"] = "refuse"
    gc_hours: _Natural = 24
    unreferenced_days: _Natural = 14
    trash_days: _Natural = 30


class HooksSettings(Section, frozen=True):
    """What happens with a push before and after it is accepted."""

    enabled: bool = True
    directory: str = ""
    timeout_seconds: _Positive = 30
    report_seconds: Annotated[float, msgspec.Meta(ge=0)] = 3.0
    workers: _Positive = 2
    poll_seconds: Annotated[float, msgspec.Meta(gt=0)] = 5.0
    digest_bytes: _Natural = 64 * 1024**3


Level = Literal["off", "warn", "refuse"]


class GatesSettings(Section, frozen=True):
    """What pushes of models must not contain."""

    missing_shard: Level = "refuse"
    safetensors: Level = "refuse"
    gguf: Level = "refuse"
    config: Level = "warn"
    pickle: Level = "refuse"
    secret: Level = "refuse"  # noqa: S105
    big_file: Level = "warn"
    big_file_bytes: _Positive = 10 * 1024**2
    override: Literal["nobody", "admin", "write"] = "admin"


_YEAR_HOURS = 24 * 366


class WebhooksSettings(Section, frozen=True):
    """How subscribers are told."""

    concurrent_deliveries: _Positive = 16
    timeout_seconds: Annotated[float, msgspec.Meta(gt=0, le=300)] = 10.0
    retry_hours: Annotated[float, msgspec.Meta(ge=0, le=_YEAR_HOURS)] = 24.0
    first_retry_seconds: Annotated[float, msgspec.Meta(gt=0)] = 5.0
    max_retry_seconds: _Positive = 3600
    pause_after_hours: Annotated[float, msgspec.Meta(gt=0, le=_YEAR_HOURS)] = 72.0
    max_per_scope: _Positive = 50
    max_payload_bytes: _Positive = 1024**2
    keep_days: _Positive = 30
    poll_seconds: Annotated[float, msgspec.Meta(gt=0)] = 2.0
    allowed_networks: tuple[str, ...] = ()
    allow_http: bool = False


class MaintenanceSettings(Section, frozen=True):
    """Repacking and sweeping, per repository, from a queue."""

    enabled: bool = True
    packs_threshold: int = 12
    full_repack_days: int = 7
    grace_seconds: int = 3600
    # Below it bytes could be swept between being stored and being committed.
    orphan_seconds: Annotated[int, msgspec.Meta(ge=600)] = 24 * 3600
    unreachable_days: int = 14
    poll_seconds: float = 15.0


class RepositorySettings(Section, frozen=True):
    """What a new repository is like."""

    push_to_create: Literal["off", "private", "public"] = "private"
    default_branch: str = "main"
    default_visibility: Literal["private", "public"] = "private"
    creators: Literal["users", "admins"] = "users"


class AuthSettings(Section, frozen=True):
    """Logins, tokens and back-off."""

    anonymous_read: bool = True
    password_min_length: int = 10
    failures_before_backoff: int = 5
    backoff_max_seconds: int = 900
    password_cache_seconds: int = 60


class Settings(Section, frozen=True):
    """Everything that `config.toml` can say."""

    server: ServerSettings = ServerSettings()
    http: HttpSettings = HttpSettings()
    ssh: SshSettings = SshSettings()
    database: DatabaseSettings = DatabaseSettings()
    storage: StorageSettings = StorageSettings()
    git: GitSettings = GitSettings()
    lfs: LfsSettings = LfsSettings()
    hooks: HooksSettings = HooksSettings()
    gates: GatesSettings = GatesSettings()
    webhooks: WebhooksSettings = WebhooksSettings()
    maintenance: MaintenanceSettings = MaintenanceSettings()
    repositories: RepositorySettings = RepositorySettings()
    auth: AuthSettings = AuthSettings()

    @property
    def data_dir(self) -> Path:
        """The directory of everything this server keeps on disk, absolute."""
        return Path(self.server.data).expanduser().resolve()

    @property
    def database_url(self) -> str:
        """An SQLAlchemy URL with an async driver."""
        url = self.database.url
        if not url:
            return f"sqlite+aiosqlite:///{self.data_dir / 'modelyard.db'}"
        for plain in ("postgresql://", "postgres://"):
            if url.startswith(plain):
                return "postgresql+psycopg://" + url.removeprefix(plain)
        return url

    @property
    def store_dir(self) -> Path:
        """The local object store; used when `[storage] kind = "local"`."""
        return Path(self.storage.path).resolve() if self.storage.path else self.data_dir / "objects"

    @property
    def cache_dir(self) -> Path:
        """Disposable copies of repositories for the git binary."""
        return Path(self.git.cache).resolve() if self.git.cache else self.data_dir / "cache"


def load_settings(
    file: Path | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
) -> Settings:
    """Reads the settings; `overrides` is `{section: {key: value}}` from the command line.

    Raises:
        SettingsError: the file cannot be read, or names or types do not fit; the message names the key.
    """
    merged: dict[str, dict[str, Any]] = {}
    for layer in (_from_file(file) if file else {}, _from_environment(environ), overrides or {}):
        for section, values in layer.items():
            if not isinstance(values, Mapping):
                raise SettingsError(f"`{section}` stands outside every section of the configuration")
            merged.setdefault(section, {}).update(values)
    try:
        # Environment values arrive as text; lax conversion turns "true", "5" into what the field says.
        return msgspec.convert(merged, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(f"configuration: {error}") from error


def _from_file(file: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot read {file}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} is not valid TOML: {error}") from error


def _from_environment(environ: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name, value in environ.items():
        if not name.startswith(ENVIRONMENT_PREFIX) or name in RESERVED_ENVIRONMENT:
            continue
        section, separator, key = name.removeprefix(ENVIRONMENT_PREFIX).lower().partition("__")
        if not separator:
            raise SettingsError(f"environment: {name} names no key; write MODELYARD_SECTION__KEY")
        parts = [part.strip() for part in value.split(",") if part.strip()]
        found.setdefault(section, {})[key] = parts if _is_list(section, key) else value
    return found


def _is_list(section: str, key: str) -> bool:
    return (section, key) in {("http", "trusted_proxies"), ("webhooks", "allowed_networks")}
