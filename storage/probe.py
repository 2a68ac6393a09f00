"""The proof that a store works, by using it."""

from uuid import uuid4

from storage.protocol import ObjectNotFound, ObjectStore, StoreUnavailable
from storage.streams import single

PROBE_PREFIX = "probe/"


async def prove(store: ObjectStore) -> None:
    """Writes, reads and deletes a small object. Raises `StoreUnavailable`."""
    # A key of its own per call: several workers and machines check one store at the same time.
    key = PROBE_PREFIX + uuid4().hex
    expected = key.encode()
    await store.put(key, single(expected))
    try:
        async with store.open(key) as chunks:
            found = b"".join([chunk async for chunk in chunks])
    except ObjectNotFound as error:
        raise StoreUnavailable("the object store lost an object it had just accepted") from error
    finally:
        await store.delete(key)
    if found != expected:
        raise StoreUnavailable("the object store returned other bytes than were written")
