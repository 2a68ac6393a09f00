"""The one error tree.

Every refusal that a client may see is a `ModelyardError` with a stable `code`, an HTTP `status` and a
message that is safe to show. Each face renders it once: REST as an RFC 9457 problem, Git over HTTP as a
plain status, Git over SSH as one line on standard error. Anything else that escapes is a bug: status 500,
logged with its traceback, and never shown.
"""

from typing import ClassVar


class ModelyardError(Exception):
    """A refusal with a stable code.

    Attributes:
        code: snake_case, part of the public API; never renamed.
        status: the HTTP status of the REST face.
        message: one sentence, shown to the client as it is.
        fields: machine-readable details, rendered beside the message.
    """

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500

    def __init__(self, message: str, **fields: object) -> None:
        super().__init__(message)
        self.message = message
        self.fields = fields


class BadRequest(ModelyardError):
    code = "bad_request"
    status = 400


class InvalidName(BadRequest):
    code = "invalid_name"


class InvalidCursor(BadRequest):
    code = "invalid_cursor"


class ProtocolError(BadRequest):
    """The bytes are not the Git protocol that was promised."""

    code = "protocol_error"


class AuthenticationRequired(ModelyardError):
    """Nobody is logged in and the operation needs somebody; also for what may not exist."""

    code = "authentication_required"
    status = 401


class InvalidCredentials(AuthenticationRequired):
    code = "invalid_credentials"


class PermissionDenied(ModelyardError):
    """The actor may see the thing, but not do this to it."""

    code = "permission_denied"
    status = 403


class NotFound(ModelyardError):
    """It does not exist, or the actor may not know that it does."""

    code = "not_found"
    status = 404


class AccountNotFound(NotFound):
    code = "account_not_found"


class RepositoryNotFound(NotFound):
    code = "repository_not_found"


class RevisionNotFound(NotFound):
    code = "revision_not_found"


class EntryNotFound(NotFound):
    code = "entry_not_found"


class Conflict(ModelyardError):
    code = "conflict"
    status = 409


class AlreadyExists(Conflict):
    code = "already_exists"


class RefConflict(Conflict):
    """A ref moved since the caller looked at it, or the name collides with another ref."""

    code = "ref_conflict"


class StaleParent(ModelyardError):
    """The branch is no longer at the commit that the caller expected."""

    code = "stale_parent"
    status = 412


class PayloadTooLarge(ModelyardError):
    code = "payload_too_large"
    status = 413


class RangeNotSatisfiable(ModelyardError):
    code = "range_not_satisfiable"
    status = 416


class Unprocessable(ModelyardError):
    """The request is well formed and asks for something that cannot be."""

    code = "unprocessable"
    status = 422


class PushRefused(Unprocessable):
    code = "push_refused"


class TooManyRequests(ModelyardError):
    """Try again after `retry_after` whole seconds."""

    code = "too_many_requests"
    status = 429

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message, retry_after=retry_after)
        self.retry_after = retry_after


class Unavailable(ModelyardError):
    """A part that the answer needs (database, object store, git) is out of reach; nothing was changed."""

    code = "unavailable"
    status = 503


class SettingsError(ModelyardError):
    """The configuration cannot be used; the message names the setting."""

    code = "invalid_settings"
