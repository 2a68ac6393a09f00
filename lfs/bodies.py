"""JSON of clients, read into declared forms."""

from typing import TypeVar

import msgspec

from lfs.errors import InvalidBatch

T = TypeVar("T", bound=msgspec.Struct)


def read_body(body: bytes, kind: type[T]) -> T:
    """The body in this form; unknown keys are passed over.

    Raises:
        InvalidBatch: it is something else; the message says where.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidBatch(f"this is not what was expected here: {error}") from error
    except RecursionError as error:
        raise InvalidBatch("this is nested too deeply") from error
