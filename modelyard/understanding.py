"""The part of the composition root that is about what pushes mean."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from core.database import Database
from core.settings import HooksSettings
from gitserver.process import GitRunner
from gitserver.reading import Reader
from gitserver.snapshots import Snapshots
from hooks.heads import Heads
from hooks.parsing import Parsing
from hooks.tensors.diff import TensorDiffs
from hooks.tensors.digester import Digester
from hooks.tensors.ledger import Ledger
from hooks.tensors.queueing import DigestQueue
from hooks.tensors.reading import WeightReader
from hooks.tensors.step import CompareTensors
from hooks.trees import Trees
from hooks.version_step import UnderstandVersions
from hooks.versions import Versions
from modelyard.large_files import LargeFiles


@dataclass(frozen=True, slots=True)
class Understanding:
    """What gates, the faces, the command line and the workers need to know what is in a commit."""

    trees: Trees
    parsing: Parsing
    versions: Versions
    heads: Heads
    metadata: UnderstandVersions
    tensors: TensorDiffs
    digester: Digester
    compare_tensors: CompareTensors


@asynccontextmanager
async def open_understanding(
    settings: HooksSettings,
    database: Database,
    git: GitRunner,
    snapshots: Snapshots,
    reader: Reader,
    large_files: LargeFiles,
) -> AsyncIterator[Understanding]:
    """Closes what it made."""
    parsing = Parsing(database)
    try:
        trees = Trees(git, snapshots, large_files.objects, large_files.stores)
        versions = Versions(database, trees, parsing)
        ledger, weights = Ledger(database), WeightReader(trees)
        queue = DigestQueue(database, poll_seconds=settings.poll_seconds)
        tensors = TensorDiffs(versions, weights, ledger, queue, settings)
        digester = Digester(queue, ledger, weights, poll_seconds=settings.poll_seconds)
        yield Understanding(
            trees=trees,
            parsing=parsing,
            versions=versions,
            heads=Heads(database, versions),
            metadata=UnderstandVersions(database, versions, reader),
            tensors=tensors,
            digester=digester,
            compare_tensors=CompareTensors(tensors, digester),
        )
    finally:
        await parsing.close()
