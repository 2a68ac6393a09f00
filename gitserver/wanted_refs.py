"""`want-ref` of protocol version 2, resolved here.

Git's own upload-pack sends `wanted-refs` before `shallow-info`, which gitprotocol-v2(5) orders the other way
round and git's own fetch refuses: a shallow clone from such a server fails. So the names are turned into oids
before git sees them, and the section is put in its place on the way out.
"""

from collections.abc import Mapping, Sequence

from core.errors import ProtocolError
from gitserver.protocol import DELIM, FLUSH, RESPONSE_END, ByteReader, ByteWriter, PktReader, pkt_line
from gitserver.states import RefValue

_PREFIX = b"want-ref "
_SECTIONS_LIMIT = 256 * 1024 * 1024


def resolve_wanted_refs(
    arguments: Sequence[bytes], refs: Mapping[str, RefValue], default_branch: str
) -> tuple[list[bytes], list[bytes]]:
    """Returns the arguments with oids for names, and the lines of the `wanted-refs` section.

    Raises:
        ProtocolError: a name that is no ref here.
    """
    rewritten, section = [], []
    for line in arguments:
        if not line.startswith(_PREFIX):
            rewritten.append(line)
            continue
        name = line.removeprefix(_PREFIX)
        text = name.decode("utf-8", "replace")
        value = refs.get(f"refs/heads/{default_branch}" if text == "HEAD" else text)
        if value is None:
            raise ProtocolError(f"unknown ref {text[:200]!r}")
        rewritten.append(b"want " + value.oid.encode())
        section.append(value.oid.encode() + b" " + name)
    return rewritten, section


async def copy_with_section(source: ByteReader, writer: ByteWriter, section: Sequence[bytes]) -> None:
    """Copies a fetch response up to the head of its pack, with `wanted-refs` put in before it."""
    packets = PktReader(source, limit=_SECTIONS_LIMIT)
    while (packet := await packets.packet()) is not None:
        if packet is FLUSH or packet is DELIM or packet is RESPONSE_END:
            await writer.write(packet)
        elif packet == b"packfile\n":
            lines = [b"wanted-refs\n", *(line + b"\n" for line in section)]
            await writer.write(b"".join(map(pkt_line, lines)) + DELIM + pkt_line(packet))
            break
        else:
            await writer.write(pkt_line(packet))
    while chunk := await packets.read(65536):
        await writer.write(chunk)
