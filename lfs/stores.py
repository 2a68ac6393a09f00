"""The object stores that may hold large files: one takes new ones, others may still have old ones."""

from collections.abc import Mapping

from core.models import StoreKind
from storage.protocol import ObjectStore, StoreUnavailable


class Stores:
    """By name. More than one while objects move from one to another."""

    def __init__(self, stores: Mapping[StoreKind, ObjectStore], current: StoreKind) -> None:
        """`current` is where new objects go; it must be among `stores`."""
        self._stores = dict(stores)
        self.current_kind = current
        self.current = self._stores[current]

    def __getitem__(self, kind: StoreKind) -> ObjectStore:
        """Raises `StoreUnavailable`: the settings do not describe that store any more."""
        try:
            return self._stores[kind]
        except KeyError:
            raise StoreUnavailable(
                f"objects are in the {kind} store, which [storage] does not describe", store=kind.value
            ) from None

    def kinds(self) -> tuple[StoreKind, ...]:
        """All that are configured, the current one first."""
        return (self.current_kind, *(kind for kind in self._stores if kind is not self.current_kind))
