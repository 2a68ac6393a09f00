"""From settings to a store."""

from core.models import StoreKind
from core.settings import Settings
from storage.local import LocalStore
from storage.protocol import ObjectStore


def build_store(settings: Settings, kind: StoreKind | None = None) -> ObjectStore:
    """The store of this kind as `[storage]` describes it, by default the one that it names.

    Touches neither disk nor network: `check` does. Raises `SettingsError` for settings that cannot work.
    """
    match kind or StoreKind(settings.storage.kind):
        case StoreKind.LOCAL:
            return LocalStore(settings.store_dir)
        case StoreKind.MINIO:
            # Not for whoever keeps everything in a directory: it weighs six megabytes.
            from storage.minio_store import MinioStore  # noqa: PLC0415

            return MinioStore(settings.storage)


def configured_kinds(settings: Settings) -> tuple[StoreKind, ...]:
    """The stores that `[storage]` describes, the one that it names first.

    The local directory always is one, MinIO when there is an endpoint: both may be open at a time.
    """
    named = StoreKind(settings.storage.kind)
    described = {StoreKind.LOCAL, named} | ({StoreKind.MINIO} if settings.storage.endpoint else set())
    return (named, *sorted(described - {named}))
