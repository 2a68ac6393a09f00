"""What `modelyard doctor` asks of the database and the object store. Creates nothing."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError

from core import schema
from core.database import Database
from core.errors import ModelyardError
from core.models import Account, Pack, Repository, RepositoryType, StoreKind, now
from core.names import Address
from core.settings import Settings
from gitserver.snapshots import pack_key
from lfs.transfer_mode import may_redirect
from modelyard.cli.findings import Finding, failure, fine, fixed, warning
from storage.build import build_store, configured_kinds
from storage.local import LocalStore
from storage.protocol import ObjectStore, Signatures

_CLOCK_TOLERANCE = timedelta(seconds=5)
_STALE_SECONDS = 24 * 3600
_REPOSITORIES_SHOWN = 20


async def check_database(database: Database) -> list[Finding]:
    """Whether the database answers, knows this program's tables, and agrees about the time."""
    if database.dialect == "sqlite" and not _exists(database):
        return [failure("database", f"there is no file {database.url.database}", "modelyard migrate")]
    try:
        await database.check()
        current = await schema.is_current(database)
        skew = await _clock_skew(database)
    except ModelyardError as error:
        return [failure("database", error.message, "start it, and check [database] url")]
    except DBAPIError as error:
        return [failure("database", str(error.orig), "restore it from a backup, or check [database] url")]
    findings = [fine("database", f"{database.dialect} answers")]
    if not current:
        found = await schema.current_revision(database)
        message = f"it is at revision {found or 'none'}, this program needs another"
        findings.append(failure("database", message, "modelyard migrate"))
    if skew > _CLOCK_TOLERANCE:
        message = f"the clocks of this machine and of the database differ by {skew.total_seconds():.0f} s"
        findings.append(warning("clock", message, "synchronise both with NTP"))
    return findings


async def check_store(settings: Settings, store: ObjectStore, *, fix: bool) -> list[Finding]:
    """Whether an object can be written, read and deleted."""
    if isinstance(store, LocalStore) and not settings.store_dir.is_dir():
        return [fine("store", f"{settings.store_dir} will be made when it is needed")]
    try:
        await store.check()
    except ModelyardError as error:
        remedy = "check [storage], the rights of its user, and the space that is left"
        return [failure("store", error.message, remedy)]
    findings = [fine("store", f"{settings.storage.kind} store works")]
    if fix and isinstance(store, LocalStore) and (swept := await store.sweep_temp(_STALE_SECONDS)):
        findings.append(fixed("store", f"{swept} unfinished files of dead processes", "deleted them"))
    return findings


async def check_transfers(settings: Settings) -> list[Finding]:
    """Whether clients can be sent to the object store for large files; nothing where that is not wanted."""
    lfs = settings.lfs
    current = StoreKind(lfs.store or settings.storage.kind)
    if not may_redirect(settings, current) or StoreKind.MINIO not in configured_kinds(settings):
        return []
    store = build_store(settings, StoreKind.MINIO)
    try:
        report = await store.examine_signatures()
    finally:
        await store.close()
    where = settings.storage.public_endpoint or settings.storage.endpoint
    proxied = "" if lfs.transfer == "redirect" else "; large files travel through this server"
    match report.signatures:
        case Signatures.CHECKED:
            return [fine("transfers", f"large files travel between clients and {where}: {report.reason}")]
        case Signatures.UNKNOWN:
            message = f"{where} could not be examined from here, {report.reason}{proxied}"
            return [warning("transfers", message, "check [storage] public_endpoint, and the way there")]
        case Signatures.IGNORED:
            message = f"{where} is open to forgery, {report.reason}{proxied}"
            remedy = "put a proxy in front that refuses unsigned trailers, see deploy/README.md"
            return [(warning if proxied else failure)("transfers", message, remedy)]


async def check_packs(database: Database, store: ObjectStore) -> list[Finding]:
    """Whether every file of every pack that a repository lives on is in the object store."""
    async with database.read() as session:
        identities = (await session.scalars(select(Repository.id).order_by(Repository.id))).all()
    damaged = [identity for identity in identities if await _lacks_files(database, store, identity)]
    if not damaged:
        return [fine("packs", f"the packs of {len(identities)} repositories are in the store")]
    async with database.read() as session:
        rows = await session.execute(
            select(Account.name, Repository.type, Repository.name)
            .join(Account, Account.id == Repository.owner_id)
            .where(Repository.id.in_(damaged[:_REPOSITORIES_SHOWN]))
        )
        paths = sorted(Address(RepositoryType(kind), owner, name).path for owner, kind, name in rows)
    remedy = "restore the object store from the backup that belongs to this database"
    findings = [failure("packs", f"{path}: files of its packs are missing", remedy) for path in paths]
    if len(damaged) > len(paths):
        findings.append(failure("packs", f"{len(damaged) - len(paths)} more repositories like these", remedy))
    return findings


async def _lacks_files(database: Database, store: ObjectStore, repository_id: str) -> bool:
    # Once more when something is missing: a repack may have replaced the pack since its row was read.
    for _ in range(2):
        async with database.read() as session:
            live = select(Pack).where(Pack.repository_id == repository_id, Pack.superseded_at.is_(None))
            expected = set(_files((await session.scalars(live)).all()))
        if not expected:
            return False
        found = {item.key async for item in store.list(f"git/{repository_id}/")}
        if expected <= found:
            return False
    return True


def _files(packs: Iterable[Pack]) -> Iterable[str]:
    for pack in packs:
        for suffix in pack.suffixes:
            yield pack_key(pack.repository_id, pack.key, f"{pack.name}.{suffix}")


def _exists(database: Database) -> bool:
    return Path(database.url.database or "").is_file()


async def _clock_skew(database: Database) -> timedelta:
    if database.dialect == "sqlite":
        return timedelta()
    async with database.read() as session:
        theirs: datetime = (await session.scalars(select(func.clock_timestamp()))).one()
    return abs(theirs - now())
