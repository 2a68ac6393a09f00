"""What parsers found, by content and parser: the last in memory, all that shall stay in the database."""

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Text, cast, select, tuple_

from core.database import Database
from core.models import ParsedFile, now
from core.upsert import insert_into
from hooks.formats.parsed import Finding, Parsed

# The only lists that grow with a model: of a large one they are nearly all that was found.
LONG_LISTS = frozenset({"tensors", "weight_map"})

# So many are asked for and written at once: each may weigh megabytes.
_AT_ONCE = 32
# Up to this size, in bytes, decoding takes less than handing it to a thread.
_SMALL = 32 * 1024


class Key(NamedTuple):
    """One content as one version of one parser understands it. Ordered, so that writers never deadlock."""

    digest: str
    parser: str
    version: int


@dataclass(slots=True)
class Kept:
    """What was found, as JSON, which takes a tenth of the memory; `open`: it is still to be stored."""

    data: bytes
    open: bool

    async def parsed(self, *, lists: bool) -> Parsed:
        """The same, decoded anew for everybody who asks; `lists`: with `LONG_LISTS`, which takes a while."""
        decode = _decoder.decode if lists else _brief
        if len(self.data) <= _SMALL:
            return decode(self.data)
        return await asyncio.to_thread(decode, self.data)


class _Brief(msgspec.Struct):
    metadata: dict[str, msgspec.Raw] | None
    findings: tuple[Finding, ...]


class _Parts(msgspec.Struct):
    metadata: msgspec.Raw
    findings: msgspec.Raw


_decoder = msgspec.json.Decoder(Parsed)
_brief_decoder = msgspec.json.Decoder(_Brief)
_parts_decoder = msgspec.json.Decoder(_Parts)


def _brief(data: bytes) -> Parsed:
    found = _brief_decoder.decode(data)
    if found.metadata is None:
        return Parsed(None, found.findings)
    short = {key: msgspec.json.decode(raw) for key, raw in found.metadata.items() if key not in LONG_LISTS}
    return Parsed(short, found.findings)


class ParsedFiles:
    """Memory and table. Who may know what is in a content is for the caller to say."""

    def __init__(self, database: Database, cache_bytes: int) -> None:
        self._database = database
        self._memory: OrderedDict[Key, Kept] = OrderedDict()
        self._bytes = 0
        self._cache_bytes = cache_bytes

    async def find(self, keys: Collection[Key]) -> dict[Key, Kept]:
        """What is known of these. Raises `DatabaseUnavailable`."""
        found = {}
        for key in keys:
            if (kept := self._memory.get(key)) is not None:
                self._memory.move_to_end(key)
                found[key] = kept
        if len(found) < len(keys):
            async with self._database.read() as session:
                for some in _slices([key for key in keys if key not in found]):
                    wanted = {(key.digest, key.parser): key for key in some}
                    query = _KNOWN.where(tuple_(ParsedFile.digest, ParsedFile.parser).in_(list(wanted)))
                    for digest, parser, version, metadata, findings in await session.execute(query):
                        key = wanted[digest, parser]
                        if version == key.version:
                            data = f'{{"metadata":{metadata or "null"},"findings":{findings}}}'.encode()
                            found[key] = self.add(key, data, lasting=False)
        return found

    def add(self, key: Key, data: bytes, *, lasting: bool) -> Kept:
        """Keeps in memory what was found, as the JSON of a `Parsed`; `lasting`: `store` shall store it."""
        if key in self._memory:
            self._bytes -= len(self._memory.pop(key).data)
        kept = self._memory[key] = Kept(data, lasting)
        self._bytes += len(data)
        while self._bytes > self._cache_bytes:
            _, gone = self._memory.popitem(last=False)
            self._bytes -= len(gone.data)
        return kept

    async def store(self, found: Mapping[Key, Kept]) -> None:
        """Writes what the database does not have, in place of what another version of the parser found.

        Raises:
            DatabaseUnavailable: try again; nothing is lost.
        """
        values = ("version", "metadata", "findings", "parsed_at")
        for some in _slices(sorted(key for key, kept in found.items() if kept.open)):
            rows = [_row(key, found[key].data) for key in some]
            async with self._database.transaction() as session:
                statement = insert_into(session, ParsedFile)
                statement = statement.on_conflict_do_update(
                    index_elements=[ParsedFile.digest, ParsedFile.parser],
                    set_={name: statement.excluded[name] for name in values},
                )
                await session.execute(statement, rows)
            for key in some:
                found[key].open = False


# As text: nobody has to take it apart and put it together again, megabytes of it, in the event loop.
_KNOWN = select(
    ParsedFile.digest,
    ParsedFile.parser,
    ParsedFile.version,
    cast(ParsedFile.metadata_, Text),
    cast(ParsedFile.findings, Text),
)


def _row(key: Key, data: bytes) -> dict[str, Any]:
    parts = _parts_decoder.decode(data)
    return {
        "digest": key.digest,
        "parser": key.parser,
        "version": key.version,
        "metadata_": None if bytes(parts.metadata) == b"null" else parts.metadata,
        "findings": parts.findings,
        "parsed_at": now(),
    }


def _slices(keys: Collection[Key]) -> Iterator[list[Key]]:
    rest = iter(keys)
    while some := list(islice(rest, _AT_ONCE)):
        yield some
