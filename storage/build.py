"""From settings to a store."""

from core.settings import Settings
from storage.local import LocalStore
from storage.minio_store import MinioStore
from storage.protocol import ObjectStore


def build_store(settings: Settings) -> ObjectStore:
    """The store that the settings name; touches neither disk nor network: `check` does.

    Raises `SettingsError` for settings that cannot work.
    """
    match settings.storage.kind:
        case "local":
            return LocalStore(settings.store_dir)
        case "minio":
            return MinioStore(settings.storage)
