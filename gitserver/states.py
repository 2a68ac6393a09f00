"""What a repository is at one moment: its refs and packs, from the database or remembered."""

from collections import OrderedDict
from dataclasses import dataclass, replace

from sqlalchemy import bindparam, select
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import Database
from core.errors import RepositoryNotFound
from core.models import ObjectFormat, Pack, Ref, Repository

# Some 300 bytes each.
_MAX_REMEMBERED = 100_000

_NOW = select(Repository.refs_version, Repository.state, Repository.prune_epoch).where(
    Repository.id == bindparam("repository_id")
)


@dataclass(frozen=True, slots=True)
class RefValue:
    """What a ref names; `peeled` is the object behind an annotated tag, else None."""

    oid: str
    peeled: str | None = None


@dataclass(frozen=True, slots=True)
class RepositoryState:
    """Refs and live packs of one repository, as one read transaction saw them."""

    repository_id: str
    version: int
    state: str
    prune_epoch: int
    default_branch: str
    object_format: ObjectFormat
    refs: dict[str, RefValue]
    packs: tuple[Pack, ...]

    @property
    def name(self) -> str:
        """Names this state among all states of the repository."""
        return f"{self.version}-{self.state}"

    @property
    def weight(self) -> int:
        """What it costs to remember: refs, packs, and something for itself."""
        return len(self.refs) + len(self.packs) + 10


async def read_state(session: AsyncSession, repository_id: str) -> RepositoryState:
    """Reads refs and live packs in the caller's transaction.

    Raises:
        RepositoryNotFound: it was deleted meanwhile.
    """
    repository = await session.get(Repository, repository_id, populate_existing=True)
    if repository is None:
        raise RepositoryNotFound("no such repository")
    refs = await session.execute(
        select(Ref.name, Ref.oid, Ref.peeled).where(Ref.repository_id == repository_id).order_by(Ref.name)
    )
    packs = await session.scalars(
        select(Pack)
        .where(Pack.repository_id == repository_id, Pack.superseded_at.is_(None))
        .order_by(Pack.id)
    )
    return RepositoryState(
        repository_id=repository_id,
        version=repository.refs_version,
        state=repository.state,
        prune_epoch=repository.prune_epoch,
        default_branch=repository.default_branch,
        object_format=repository.object_format,
        refs={name: RefValue(oid, peeled) for name, oid, peeled in refs},
        packs=tuple(packs),
    )


class States:
    """Reads states, and remembers those of busy repositories.

    Each question reads the repository's row, so that an answer is never older than the question; refs and
    packs are read again only when that row names a state that is not remembered.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: OrderedDict[str, RepositoryState] = OrderedDict()
        self._remembered = 0

    async def current(self, repository_id: str) -> RepositoryState:
        """Raises `RepositoryNotFound`."""
        rows = await self._database.rows(_NOW, {"repository_id": repository_id})
        if not rows:
            raise RepositoryNotFound("no such repository")
        version, name, epoch = rows[0]
        known = self._known.get(repository_id)
        if known is not None and (known.version, known.state) == (version, name):
            self._known.move_to_end(repository_id)
            return known if known.prune_epoch == epoch else replace(known, prune_epoch=epoch)
        async with self._database.read() as session:
            found = await read_state(session, repository_id)
        self._remember(found)
        return found

    def _remember(self, state: RepositoryState) -> None:
        if state.weight > _MAX_REMEMBERED // 2:
            return
        former = self._known.pop(state.repository_id, None)
        self._remembered -= former.weight if former is not None else 0
        self._known[state.repository_id] = state
        self._remembered += state.weight
        while self._remembered > _MAX_REMEMBERED:
            _, oldest = self._known.popitem(last=False)
            self._remembered -= oldest.weight
