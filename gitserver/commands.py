"""What a client asks of receive-pack: its commands, capabilities and push options (gitprotocol-pack(5))."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from core.errors import ProtocolError
from core.models import ObjectFormat
from core.names import is_valid_ref
from gitserver.protocol import FLUSH, PktReader
from gitserver.updates import RefUpdate, is_zero

# Written by the server alone; `git push --mirror` of a clone from a forge names them all the same.
HIDDEN_PREFIXES = ("refs/pull/", "refs/pr/", "refs/merge-requests/", "refs/convert/", "refs/modelyard/")
_MAX_OPTIONS = 64
_MAX_OPTION_BYTES = 4096
HEX_LENGTH = {ObjectFormat.SHA1: 40, ObjectFormat.SHA256: 64}


@dataclass(frozen=True, slots=True)
class PushRequest:
    """The commands of one push, in the client's order. `refused` holds those that can never be done."""

    updates: tuple[RefUpdate, ...]
    refused: dict[str, str]
    capabilities: frozenset[str]
    options: tuple[str, ...]

    def has(self, capability: str) -> bool:
        """Whether the client asked for it."""
        return capability in self.capabilities

    @property
    def sends_pack(self) -> bool:
        """Whether a pack follows: as soon as one command is no deletion, refused or not."""
        return any(not one.deletes for one in self.updates)


async def read_push_request(
    packets: PktReader, object_format: ObjectFormat, *, max_commands: int
) -> PushRequest | None:
    """Reads up to the pack. None: the client came to look, or to probe with a bare flush, and sends nothing.

    Raises:
        ProtocolError: what comes is not a list of commands, or there are more than `max_commands`.
        PayloadTooLarge: the list exceeds the limit of `packets`.
    """
    updates: list[RefUpdate] = []
    capabilities: frozenset[str] = frozenset()
    first = await packets.packet()
    if first is None or first is FLUSH:
        return None
    line = first.removesuffix(b"\n")
    while True:
        command, nul, rest = line.partition(b"\0")
        if nul:
            if updates:
                raise ProtocolError("capabilities belong to the first command")
            capabilities = frozenset(rest.decode("utf-8", "replace").split())
        if command.startswith(b"push-cert"):
            raise ProtocolError("signed pushes are not offered")
        if not command.startswith(b"shallow "):
            updates.append(_command(command, object_format))
        if len(updates) > max_commands:
            raise ProtocolError(f"a push may change {max_commands} refs at most; push in parts")
        packet = await packets.packet()
        if packet is FLUSH:
            break
        if packet is None:
            raise ProtocolError("the list of commands was cut off")
        line = packet.removesuffix(b"\n")
    wanted = next((c.partition("=")[2] for c in capabilities if c.startswith("object-format=")), "sha1")
    if wanted != object_format:
        raise ProtocolError(f"this repository uses {object_format.value}, the push {wanted[:20]}")
    options = await _options(packets) if "push-options" in capabilities else ()
    return PushRequest(tuple(updates), _refusals(updates), capabilities, options)


def _command(line: bytes, object_format: ObjectFormat) -> RefUpdate:
    length = HEX_LENGTH[object_format]
    match = re.fullmatch(rb"([0-9a-f]{%d}) ([0-9a-f]{%d}) (.+)" % (length, length), line, re.DOTALL)
    if match is None:
        raise ProtocolError("expected old oid, new oid and ref name")
    # Surrogates mark a name that is not UTF-8; is_valid_ref refuses it, and it can still be reported.
    return RefUpdate(match[3].decode("utf-8", "surrogateescape"), match[1].decode(), match[2].decode())


async def _options(packets: PktReader) -> tuple[str, ...]:
    options: list[str] = []
    async for line in packets.lines():
        if len(line) > _MAX_OPTION_BYTES or len(options) >= _MAX_OPTIONS:
            raise ProtocolError(f"at most {_MAX_OPTIONS} push options of {_MAX_OPTION_BYTES} bytes are taken")
        options.append(line.decode("utf-8", "replace"))
    return tuple(options)


def _refusals(updates: list[RefUpdate]) -> dict[str, str]:
    refused: dict[str, str] = {}
    seen: set[str] = set()
    for one in updates:
        if one.name in seen:
            refused[one.name] = "multiple updates for one ref are not allowed"
        elif not _is_utf8(one.name) or not is_valid_ref(one.name):
            refused[one.name] = "funny refname"
        elif one.name.startswith(HIDDEN_PREFIXES):
            refused[one.name] = "deny updating a hidden ref"
        elif is_zero(one.old) and is_zero(one.new):
            refused[one.name] = "remote ref does not exist"
        seen.add(one.name)
    return refused


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def with_peeled(updates: Sequence[RefUpdate], peeled: dict[str, str]) -> tuple[RefUpdate, ...]:
    """The updates with what their annotated tags point to."""
    return tuple(replace(one, peeled=peeled.get(one.new)) for one in updates)
