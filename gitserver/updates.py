"""Wanted changes of refs, what became of them, and their rows: who wins is decided under one lock."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import bindparam, delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.models import Ref, Repository

_ZEROS = re.compile("0+")

# Above this many new names in one push, reading all names once beats asking for each.
_MANY = 50


@dataclass(frozen=True, slots=True)
class RefUpdate:
    """One wanted change; an oid of zeros means "absent", as on the wire."""

    name: str
    old: str
    new: str
    peeled: str | None = None

    @property
    def creates(self) -> bool:
        return is_zero(self.old)

    @property
    def deletes(self) -> bool:
        return is_zero(self.new)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of an update; `error` is None when it is done, else the reason for the client."""

    name: str
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Published:
    """A verdict for each update, in their order; `push_id` is None when nothing was written."""

    verdicts: Sequence[Verdict]
    push_id: int | None = None


def is_zero(oid: str) -> bool:
    """Whether an oid on the wire means "absent"."""
    return _ZEROS.fullmatch(oid) is not None


async def judge(session: AsyncSession, repository: Repository, updates: Sequence[RefUpdate]) -> list[Verdict]:
    current = await _current(session, repository.id, [one.name for one in updates])
    names = await _names_around(session, repository.id, updates)
    names -= {one.name for one in updates if one.deletes and current.get(one.name) == one.old}
    folders = {folder for name in names for folder in _folders(name)}
    verdicts = []
    for one in updates:
        found = current.get(one.name)
        error = None
        if found is None and not one.creates:
            error = "remote ref does not exist" if one.deletes else "remote ref is gone; fetch first"
        elif one.creates and one.deletes:
            error = "remote ref does not exist"
        elif found is not None and one.creates:
            error = "reference already exists"
        elif found is not None and found != one.old:
            error = "remote ref moved since your last fetch; fetch first"
        elif one.creates and (one.name in folders or not names.isdisjoint(_folders(one.name))):
            error = "name conflicts with another ref, as file and directory would"
        if error is None and not one.deletes:
            names.add(one.name)
            folders.update(_folders(one.name))
        verdicts.append(Verdict(one.name, error))
    return verdicts


async def _current(session: AsyncSession, repository_id: str, names: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for start in range(0, len(names), 500):
        rows = await session.execute(
            select(Ref.name, Ref.oid).where(
                Ref.repository_id == repository_id, Ref.name.in_(names[start : start + 500])
            )
        )
        found.update((name, oid) for name, oid in rows)
    return found


async def _names_around(session: AsyncSession, repository_id: str, updates: Sequence[RefUpdate]) -> set[str]:
    """Existing names that new names could collide with, as file against directory."""
    created = [one.name for one in updates if one.creates]
    query = select(Ref.name).where(Ref.repository_id == repository_id)
    if len(created) > _MANY or (created and len(created) < len(updates)):
        return set(await session.scalars(query))
    names: set[str] = set()
    for name in created:
        # The bytewise order of the column makes "below name/" a range: "0" is the byte after "/".
        names.update(
            await session.scalars(query.where(Ref.name > name + "/", Ref.name < name + "0").limit(1))
        )
        names.update(await session.scalars(query.where(Ref.name.in_(_folders(name)))))
    return names


def _folders(name: str) -> list[str]:
    """`refs/heads/a/b` lies in `refs/heads` and `refs/heads/a`."""
    parts = name.split("/")
    return ["/".join(parts[:end]) for end in range(2, len(parts))]


async def apply(session: AsyncSession, repository_id: str, accepted: Sequence[RefUpdate]) -> None:
    """Writes refs that were judged under the same lock, kind by kind: thousands cost a few statements."""
    connection = await session.connection()
    one_ref = (Ref.repository_id == repository_id, Ref.name == bindparam("ref"))
    gone = [{"ref": one.name} for one in accepted if one.deletes]
    moved = [
        {"ref": one.name, "oid": one.new, "peeled": one.peeled}
        for one in accepted
        if not one.creates and not one.deletes
    ]
    if gone:
        await connection.execute(delete(Ref).where(*one_ref), gone)
    if moved:
        await connection.execute(update(Ref).where(*one_ref), moved)
    session.add_all(
        Ref(repository_id=repository_id, name=one.name, oid=one.new, peeled=one.peeled)
        for one in accepted
        if one.creates
    )
    await session.flush()
