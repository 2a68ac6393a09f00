"""What can be wrong with large files. Statuses are those of git-lfs's API documents."""

from typing import TYPE_CHECKING

from core.errors import Conflict, ModelyardError, NotFound, PayloadTooLarge, PermissionDenied, Unprocessable

if TYPE_CHECKING:  # locks.py raises what is here
    from lfs.locks import Lock


class ObjectMissing(NotFound):
    """The repository has no such object, whatever other repositories have."""

    code = "lfs_object_missing"


class ObjectDamaged(ModelyardError):
    """The object was stored, and its bytes are not what they were; uploading it again mends it."""

    code = "lfs_object_damaged"
    status = 410


class InvalidOid(Unprocessable):
    code = "lfs_invalid_oid"


class InvalidBatch(Unprocessable):
    """The body is no batch request, no verification, or no lock request."""

    code = "lfs_invalid_request"


class WrongBytes(Unprocessable):
    """What was sent has another size or another sha256 than was announced; nothing was stored."""

    code = "lfs_wrong_bytes"


class WrongParts(Unprocessable):
    """A part that the upload does not have, or parts that lack or are others than the client says."""

    code = "lfs_wrong_parts"


class TooManyObjects(PayloadTooLarge):
    code = "lfs_too_many_objects"


class ObjectTooLarge(PayloadTooLarge):
    code = "lfs_object_too_large"


class QuotaExceeded(ModelyardError):
    """The owner's quota does not hold these bytes as well; nothing was stored."""

    code = "lfs_quota_exceeded"
    status = 507


class LinkRefused(PermissionDenied):
    """A transfer link that is expired, forged, or for something else. Clients ask for a new batch on 403."""

    code = "lfs_link_refused"


class UploadNotFound(NotFound):
    """No such upload in parts is under way: it was completed, dropped, or never begun."""

    code = "lfs_upload_not_found"


class LockExists(Conflict):
    """The path is locked already; `lock` is the lock in the way."""

    code = "lfs_lock_exists"

    def __init__(self, message: str, lock: "Lock") -> None:
        super().__init__(message, id=lock.id, path=lock.path, owner=lock.owner)
        self.lock = lock


class LockNotFound(NotFound):
    code = "lfs_lock_not_found"
