"""What the server says first: capabilities, and refs straight from the database.

Formats: gitprotocol-pack(5) for versions 0 and 1, gitprotocol-v2(5) for version 2.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version

from core.errors import ProtocolError
from core.models import ObjectFormat
from gitserver.protocol import DELIM, FLUSH, MAX_PAYLOAD, PktReader, pkt_line
from gitserver.states import RefValue, RepositoryState

AGENT = f"agent=modelyard/{version('modelyard')}"
_NULL_OID = {ObjectFormat.SHA1: "0" * 40, ObjectFormat.SHA256: "0" * 64}
_MAX_PREFIXES = 65536
# Written to the client in pieces of about this size.
_BATCH_BYTES = 128 * 1024
# What is remembered of answers, and the longest one of them.
_MAX_ANSWERS = 16 * 1024**2
_MAX_ANSWER = 4 * 1024**2


def capabilities_v2(object_format: ObjectFormat) -> bytes:
    """The capability advertisement of version 2; the same for every repository of one format."""
    lines = (
        "version 2",
        AGENT,
        "ls-refs=unborn",
        "fetch=shallow wait-for-done filter ref-in-want",
        "server-option",
        f"object-format={object_format.value}",
        "object-info",
    )
    return b"".join(pkt_line(f"{line}\n".encode()) for line in lines) + FLUSH


def receive_pack_refs(state: RepositoryState, protocol: int) -> Iterator[bytes]:
    """The advertisement of receive-pack; pushes know only versions 0 and 1."""
    capabilities = (
        "report-status report-status-v2 delete-refs side-band-64k quiet atomic ofs-delta push-options "
        f"object-format={state.object_format.value} {AGENT}"
    )
    if protocol == 1:
        yield pkt_line(b"version 1\n")
    first = True
    for name, value in state.refs.items():
        tail = f"\0{capabilities}" if first else ""
        yield pkt_line(f"{value.oid} {name}{tail}\n".encode())
        first = False
    if first:
        yield pkt_line(f"{_NULL_OID[state.object_format]} capabilities^{{}}\0{capabilities}\n".encode())
    yield FLUSH


@dataclass(frozen=True, slots=True)
class LsRefs:
    """The arguments of one `ls-refs` command; of the sorted `prefixes` none begins another."""

    peel: bool = False
    symrefs: bool = False
    unborn: bool = False
    prefixes: tuple[str, ...] = ()

    @classmethod
    async def read(cls, packets: PktReader) -> "LsRefs":
        """Reads the arguments up to the flush.

        Raises:
            ProtocolError: an argument that ls-refs does not have.
        """
        flags: set[str] = set()
        prefixes: list[str] = []
        async for line in packets.lines():
            text = line.decode("utf-8", "surrogateescape")
            if text in ("peel", "symrefs", "unborn"):
                flags.add(text)
            elif text.startswith("ref-prefix "):
                # As in git: beyond a limit the filter is dropped, the client sorts out the rest.
                if len(prefixes) < _MAX_PREFIXES:
                    prefixes.append(text.removeprefix("ref-prefix "))
                else:
                    prefixes = [""]
            else:
                raise ProtocolError("unexpected line in ls-refs")
        return cls(
            peel="peel" in flags,
            symrefs="symrefs" in flags,
            unborn="unborn" in flags,
            prefixes=_without_redundant(prefixes),
        )

    def answer(self, state: RepositoryState) -> Iterator[bytes]:
        """The answer in pieces, ending with the flush."""
        head = f"refs/heads/{state.default_branch}"
        batch = bytearray()
        if self._matches("HEAD"):
            batch += self._head(state.refs.get(head), head)
        for name, value in state.refs.items():
            if self._matches(name):
                batch += self._line(name, value, "")
                if len(batch) > _BATCH_BYTES:
                    yield bytes(batch)
                    batch.clear()
        yield bytes(batch) + FLUSH

    def _matches(self, name: str) -> bool:
        if not self.prefixes:
            return True
        # Of sorted prefixes of which none begins another, only the last one not behind the name can fit.
        place = bisect_right(self.prefixes, name)
        return place > 0 and name.startswith(self.prefixes[place - 1])

    def _head(self, value: RefValue | None, target: str) -> bytes:
        if value is not None:
            return self._line("HEAD", value, f" symref-target:{target}" if self.symrefs else "")
        if self.unborn:
            return pkt_line(f"unborn HEAD{f' symref-target:{target}' if self.symrefs else ''}\n".encode())
        return b""

    def _line(self, name: str, value: RefValue, attributes: str) -> bytes:
        peeled = f" peeled:{value.peeled}" if self.peel and value.peeled else ""
        return pkt_line(f"{value.oid} {name}{attributes}{peeled}\n".encode())


class RefAnswers:
    """Answers to `ls-refs` that were given lately: busy repositories are asked the same again and again."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str, LsRefs], bytes] = OrderedDict()
        self._bytes = 0

    def answer(self, wanted: LsRefs, state: RepositoryState) -> Iterator[bytes]:
        """As `LsRefs.answer`, in one piece when it is remembered."""
        key = (state.repository_id, state.name, wanted)
        known = self._known.get(key)
        if known is not None:
            self._known.move_to_end(key)
            return iter((known,))
        return self._noted(key, wanted.answer(state))

    def _noted(self, key: "tuple[str, str, LsRefs]", pieces: Iterator[bytes]) -> Iterator[bytes]:
        seen: list[bytes] = []
        size = sum(map(len, key[2].prefixes))
        for piece in pieces:
            size += len(piece)
            if size <= _MAX_ANSWER:
                seen.append(piece)
            yield piece
        if size <= _MAX_ANSWER and key not in self._known:
            self._known[key] = b"".join(seen)
            self._bytes += size
            while self._bytes > _MAX_ANSWERS:
                (_, _, wanted), answer = self._known.popitem(last=False)
                self._bytes -= len(answer) + sum(map(len, wanted.prefixes))


def _without_redundant(prefixes: list[str]) -> tuple[str, ...]:
    kept: list[str] = []
    for prefix in sorted(prefixes):
        if not kept or not prefix.startswith(kept[-1]):
            kept.append(prefix)
    return tuple(kept)


def encode_request(command: str, capabilities: Sequence[bytes], arguments: Sequence[bytes]) -> bytes:
    """One version 2 request, as it goes on to a child."""
    parts = [pkt_line(f"command={command}\n".encode()), *map(_line, capabilities)]
    if arguments:
        parts += [DELIM, *map(_line, arguments)]
    return b"".join(parts) + FLUSH


def _line(line: bytes) -> bytes:
    return pkt_line(line + b"\n" if len(line) < MAX_PAYLOAD else line)
