"""What is true of parts in every store."""

from collections.abc import Sequence
from itertools import pairwise

from storage.protocol import MAX_PARTS, PartsNotFound, PartsRejected, StoredPart


def check_number(number: int) -> int:
    """Returns the number itself, or raises `ValueError` when no part can have it."""
    if not 1 <= number <= MAX_PARTS:
        raise ValueError(f"not the number of a part: {number}")
    return number


def check_selection(parts: Sequence[StoredPart]) -> None:
    """Raises `PartsRejected` for what no store completes."""
    if not parts:
        raise PartsRejected("an object of parts has one at least")
    if any(former.number >= part.number for former, part in pairwise(parts)):
        raise PartsRejected("parts are completed in ascending order, each once")


def parts_not_found() -> PartsNotFound:
    """In the same words whatever became of them."""
    return PartsNotFound("these parts were completed or dropped already")


def other_part(number: int) -> PartsRejected:
    """The part of this number is not what the caller says it is."""
    return PartsRejected(f"part {number} is missing or has other bytes than claimed", part=number)
