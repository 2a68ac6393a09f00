"""The part of the composition root that keeps large files: collecting, trash, checks and moves."""

from dataclasses import dataclass

from core.database import Database
from core.settings import Settings
from lfs.abandoned import AbandonedUploads
from lfs.collector import Collector
from lfs.consumption import Consumption
from lfs.explanation import Explainer
from lfs.fsck import LfsFsck
from lfs.judging import Judge
from lfs.orphans import Orphans
from lfs.reclaim import Reclaimer
from lfs.relocation import Relocation
from lfs.stores import Stores
from lfs.trash import Trash
from lfs.upkeep import Upkeep
from modelyard.pointers import Pointers


@dataclass(frozen=True, slots=True)
class Safekeeping:
    """What administrators and the background do with large files, however those travel."""

    pointers: Pointers
    collector: Collector
    orphans: Orphans
    explainer: Explainer
    trash: Trash
    fsck: LfsFsck
    relocation: Relocation
    upkeep: Upkeep
    consumption: Consumption


def build_safekeeping(
    settings: Settings, database: Database, stores: Stores, pointers: Pointers
) -> Safekeeping:
    """Opens nothing, so there is nothing to close."""
    judge = Judge(database, pointers, settings.lfs, settings.maintenance)
    collector = Collector(database, judge, Reclaimer(database, stores))
    orphans = Orphans(database, stores, settings.maintenance)
    abandoned = AbandonedUploads(database, stores, settings.lfs)
    return Safekeeping(
        pointers=pointers,
        collector=collector,
        orphans=orphans,
        explainer=Explainer(database, stores, collector, judge, orphans),
        trash=Trash(database, settings.lfs),
        fsck=LfsFsck(database, stores),
        relocation=Relocation(database, stores),
        upkeep=Upkeep(stores, orphans, abandoned, collector, settings.lfs),
        consumption=Consumption(database, settings.lfs),
    )
