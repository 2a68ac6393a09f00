"""What a supervisor tells its workers, and hears from them."""

import msgspec

from core.settings import Settings

READY = b"ready\n"


class Assignment(msgspec.Struct, frozen=True):
    """One line of JSON on the worker's standard input."""

    settings: Settings
    worker: int

    def encode(self) -> bytes:
        return msgspec.json.encode(self) + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> "Assignment":
        return msgspec.json.decode(line, type=cls)
