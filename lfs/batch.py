"""The batch API as a pure decision: a request and the known objects in, a verdict per object out.

https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import msgspec

from lfs.bodies import read_body
from lfs.errors import (
    InvalidBatch,
    InvalidOid,
    ObjectDamaged,
    ObjectMissing,
    ObjectTooLarge,
    TooManyObjects,
)
from lfs.objects import StoredObject
from lfs.pointer import is_oid

HASH = "sha256"

# Sizes are 64-bit integers in the database and to the client.
_MAX_SIZE = 2**63 - 1
_CONFLICT = 409
_UNPROCESSABLE = 422


class Operation(StrEnum):
    DOWNLOAD = "download"
    UPLOAD = "upload"


class Transfer(StrEnum):
    """The ways that this server can move bytes; others that a client lists are passed over."""

    BASIC = "basic"
    MULTIPART = "multipart"
    MULTIPART_BASIC = "multipart-basic"


@dataclass(frozen=True, slots=True)
class Wanted:
    """One object of a request, as the client wrote it."""

    oid: str
    size: int


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """A request that can be decided on. `hash_algo` and the objects may still be impossible."""

    operation: Operation
    objects: tuple[Wanted, ...]
    transfers: frozenset[Transfer] = frozenset({Transfer.BASIC})
    hash_algo: str = HASH
    ref: str | None = None

    def oids(self) -> set[str]:
        """What to look up: the well-formed ones."""
        return {wanted.oid for wanted in self.objects if is_oid(wanted.oid)}


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing can be done; the code is an HTTP status."""

    oid: str
    size: int
    code: int
    message: str


@dataclass(frozen=True, slots=True)
class Present:
    """An upload that is not needed: the repository has the object."""

    oid: str
    size: int


@dataclass(frozen=True, slots=True)
class Expected:
    """An upload that is needed."""

    oid: str
    size: int


@dataclass(frozen=True, slots=True)
class Offered:
    """A download that is possible."""

    oid: str
    size: int
    object: StoredObject


Decision = Refused | Present | Expected | Offered

_OPERATIONS = {operation.value: operation for operation in Operation}
# In order of preference where an object is large; of one file nobody downloads parts.
_POSSIBLE = {
    Operation.DOWNLOAD: (Transfer.BASIC,),
    Operation.UPLOAD: (Transfer.MULTIPART_BASIC, Transfer.MULTIPART, Transfer.BASIC),
}


class _ObjectBody(msgspec.Struct, frozen=True):
    oid: str
    size: Annotated[int, msgspec.Meta(ge=-(2**63), le=_MAX_SIZE)]


class _RefBody(msgspec.Struct, frozen=True):
    name: str | None = None


class _Body(msgspec.Struct, frozen=True):
    operation: str
    objects: list[_ObjectBody]
    transfers: list[str] | None = None
    ref: _RefBody | None = None
    hash_algo: str | None = None


def parse_batch(body: bytes, *, max_objects: int) -> BatchRequest:
    """Reads the JSON of a batch request.

    Raises:
        InvalidBatch: it is none.
        TooManyObjects: more than `max_objects`.
    """
    read = read_body(body, _Body)
    operation = _OPERATIONS.get(read.operation)
    if operation is None:
        raise InvalidBatch("the operation must be `download` or `upload`")
    if len(read.objects) > max_objects:
        raise TooManyObjects(
            f"{len(read.objects)} objects in one batch; at most {max_objects} are possible",
            max_objects=max_objects,
        )
    possible = _POSSIBLE[operation]
    listed = frozenset(possible) & frozenset(read.transfers or [Transfer.BASIC])
    if not listed:
        raise InvalidBatch(f"none of these transfers is possible here; use one of {', '.join(possible)}")
    return BatchRequest(
        operation=operation,
        objects=tuple(Wanted(one.oid, one.size) for one in read.objects),
        transfers=frozenset(map(Transfer, listed)),
        hash_algo=read.hash_algo or HASH,
        ref=read.ref.name if read.ref else None,
    )


def decide(
    request: BatchRequest, known: Mapping[str, StoredObject], *, max_object_bytes: int
) -> list[Decision]:
    """What becomes of each object, in the order of the request; every entry gets its own answer.

    `known` is what the repository has of `request.oids()`, damaged objects included.
    """
    sizes: dict[str, int] = {}
    decisions: list[Decision] = []
    for wanted in request.objects:
        first_size = sizes.setdefault(wanted.oid, wanted.size)
        reason = _impossible(request, wanted, first_size, max_object_bytes)
        if reason is not None:
            decisions.append(Refused(wanted.oid, wanted.size, *reason))
        elif request.operation is Operation.UPLOAD:
            decisions.append(_upload(wanted, known.get(wanted.oid)))
        else:
            decisions.append(_download(wanted, known.get(wanted.oid)))
    return decisions


def choose_transfer(
    request: BatchRequest, decisions: Sequence[Decision], *, multipart_bytes: int
) -> Transfer:
    """The one way for the whole answer: in parts if the client can, and one object is worth it.

    An answer names one way, and git-lfs hands every object of it to the same adapter.
    """
    largest = max((one.size for one in decisions if isinstance(one, Expected)), default=0)
    if largest < multipart_bytes and Transfer.BASIC in request.transfers:
        return Transfer.BASIC
    return next(one for one in _POSSIBLE[request.operation] if one in request.transfers)


def _impossible(
    request: BatchRequest, wanted: Wanted, first_size: int, max_object_bytes: int
) -> tuple[int, str] | None:
    if request.hash_algo != HASH:
        return _CONFLICT, f"the hash algorithm must be {HASH}"
    if not is_oid(wanted.oid):
        return InvalidOid.status, "an oid is 64 lower-case hexadecimal digits"
    if wanted.size < 0:
        return _UNPROCESSABLE, "the size of an object cannot be negative"
    if wanted.size != first_size:
        return _UNPROCESSABLE, f"the same object was named with a size of {first_size} bytes before"
    if request.operation is Operation.UPLOAD and wanted.size > min(max_object_bytes, _MAX_SIZE):
        return ObjectTooLarge.status, f"an object may have {max_object_bytes} bytes at most"
    return None


def _upload(wanted: Wanted, known: StoredObject | None) -> Decision:
    if known is None:
        return Expected(wanted.oid, wanted.size)
    if known.size != wanted.size:
        return _other_size(wanted, known)
    return Expected(wanted.oid, wanted.size) if known.damaged else Present(wanted.oid, wanted.size)


def _download(wanted: Wanted, known: StoredObject | None) -> Decision:
    if known is None:
        return Refused(wanted.oid, wanted.size, ObjectMissing.status, "the repository has no such object")
    if known.size != wanted.size:
        return _other_size(wanted, known)
    if known.damaged:
        message = "the object was damaged in the store; whoever has it can upload it again"
        return Refused(wanted.oid, wanted.size, ObjectDamaged.status, message)
    return Offered(wanted.oid, wanted.size, known)


def _other_size(wanted: Wanted, known: StoredObject) -> Refused:
    message = f"this object has {known.size} bytes, not {wanted.size}"
    return Refused(wanted.oid, wanted.size, _UNPROCESSABLE, message)
