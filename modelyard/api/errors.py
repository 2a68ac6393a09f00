"""Refusals that only the REST face knows: about the shape of a request, not about what it asks for."""

from core.errors import BadRequest, ModelyardError, Unprocessable


class InvalidJson(BadRequest):
    """The body is not JSON at all."""

    code = "invalid_json"


class InvalidRequest(Unprocessable):
    """A query parameter or a member of the body does not fit; `errors` says where, as a JSON path."""

    code = "invalid_request"

    def __init__(self, place: str, path: str, message: str) -> None:
        super().__init__(
            f"{place}: {message} at {path}", errors=[{"in": place, "path": path, "message": message}]
        )


class UnsupportedMediaType(ModelyardError):
    code = "unsupported_media_type"
    status = 415
