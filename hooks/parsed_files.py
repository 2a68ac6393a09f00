"""What parsers found, by content and parser: the last in memory, all that shall stay in the database."""

from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import select, tuple_
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from core.database import Database
from core.models import ParsedFile, now
from hooks.formats.parsed import Parsed

# So many are asked for and written at once: each may weigh megabytes.
_AT_ONCE = 64

_decoder = msgspec.json.Decoder(Parsed)


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

    @property
    def parsed(self) -> Parsed:
        return _decoder.decode(self.data)


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
                    query = select(ParsedFile).where(
                        tuple_(ParsedFile.digest, ParsedFile.parser).in_(list(wanted))
                    )
                    for row in await session.scalars(query):
                        key = wanted[row.digest, row.parser]
                        if row.version == key.version:
                            data = msgspec.json.encode({"metadata": row.metadata_, "findings": row.findings})
                            found[key] = self.add(key, data, lasting=False)
                    session.expunge_all()
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
        insert = postgresql_insert if self._database.dialect == "postgresql" else sqlite_insert
        statement = insert(ParsedFile)
        values = ("version", "metadata", "findings", "parsed_at")
        statement = statement.on_conflict_do_update(
            index_elements=[ParsedFile.digest, ParsedFile.parser],
            set_={name: statement.excluded[name] for name in values},
        )
        for some in _slices(sorted(key for key, kept in found.items() if kept.open)):
            async with self._database.transaction() as session:
                await session.execute(statement, [_row(key, found[key].parsed) for key in some])
            for key in some:
                found[key].open = False


def _row(key: Key, parsed: Parsed) -> dict[str, Any]:
    return {
        "digest": key.digest,
        "parser": key.parser,
        "version": key.version,
        "metadata_": parsed.metadata,
        "findings": [msgspec.to_builtins(one) for one in parsed.findings],
        "parsed_at": now(),
    }


def _slices(keys: Collection[Key]) -> Iterator[list[Key]]:
    rest = iter(keys)
    while some := list(islice(rest, _AT_ONCE)):
        yield some
