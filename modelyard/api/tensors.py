"""`/tensors`: which tensors differ between two revisions."""

from typing import Annotated

import msgspec
from msgspec import Meta

from core.errors import RevisionNotFound
from core.repositories import RepositoryInfo
from gitserver.queries import TooExpensive
from hooks.errors import ContentUnavailable
from hooks.tensors.comparing import Change, TensorChange
from hooks.tensors.diff import CheckpointComparison
from hooks.tensors.weights import Tensor
from modelyard.api.call import Call
from modelyard.api.operation import REPOSITORY, Access, Operations
from modelyard.api.parameters import Revision

operations = Operations("tensors", "Weights, tensor by tensor.")

_LISTED = 20_000

Limit = Annotated[
    int,
    Meta(ge=0, le=_LISTED, description="How many tensors at most are listed, of all checkpoints together."),
]


class TensorView(msgspec.Struct):
    """A tensor as its file's header describes it; `bytes` as they are stored."""

    name: str
    dtype: str
    shape: list[int]
    bytes: int


class TensorChangeView(msgspec.Struct):
    """A tensor that is not as it was; `before` is null for one that was added, `after` for one removed."""

    kinds: list[Change]
    before: TensorView | None
    after: TensorView | None


class CheckpointView(msgspec.Struct, kw_only=True):
    """A checkpoint that is not as it was: one file, or the shards of one model together.

    `counts` is of all tensors that differ, `tensors` the first of them by name. `undecided` tensors have the
    same name, shape and type: as long as `pending_bytes` are being read, ask again; of files that are larger
    than the server reads, `uncompared_bytes`, nobody will know. Whether one was renamed is only known
    by its content. With a `problem` nothing is known of the tensors, as of a file that is broken.
    """

    before: str | None
    after: str | None
    format: str
    problem: str | None
    bytes_before: int
    bytes_after: int
    tensors_before: int
    tensors_after: int
    counts: dict[str, int]
    unchanged: int
    undecided: int
    pending_bytes: int
    uncompared_bytes: int
    tensors: list[TensorChangeView]


class TensorComparisonView(msgspec.Struct):
    """Two commits. `complete`: asking again tells no more. `left_out`: so many more checkpoints differ."""

    base: str
    head: str
    complete: bool
    checkpoints: list[CheckpointView]
    left_out: int


@operations.add(
    "GET",
    REPOSITORY + "/tensors/{base}...{head}",
    access=Access.REPOSITORY_READ,
    errors=(RevisionNotFound, TooExpensive, ContentUnavailable),
)
async def compare_tensors(
    call: Call, repository: RepositoryInfo, base: Revision, head: Revision, limit: Limit = 1000
) -> TensorComparisonView:
    """Compare the weights of two revisions, tensor by tensor.

    Of safetensors and GGUF: what was added, removed, renamed, reshaped, re-typed, or changed by content.
    Names, shapes and types are known at once; contents once the server has read them, in the background.
    """
    reader, understanding = call.services.reader, call.services.understanding
    old = (await reader.commit(repository.id, base)).oid
    new = (await reader.commit(repository.id, head)).oid
    found = await understanding.tensors.compare(repository.id, old, new)
    if not found.complete:
        understanding.digester.hint()
    checkpoints = []
    for one in found.checkpoints:
        checkpoints.append(_checkpoint(one, limit))
        limit -= len(checkpoints[-1].tensors)
    return TensorComparisonView(found.base, found.head, found.complete, checkpoints, found.left_out)


def _checkpoint(one: CheckpointComparison, limit: int) -> CheckpointView:
    difference = one.difference
    return CheckpointView(
        before=one.before.name if one.before else None,
        after=one.after.name if one.after else None,
        format=one.there.kind,
        problem=one.problem,
        bytes_before=one.before.bytes if one.before else 0,
        bytes_after=one.after.bytes if one.after else 0,
        tensors_before=difference.before,
        tensors_after=difference.after,
        counts={kind.value: count for kind, count in difference.counts.items()},
        unchanged=difference.unchanged,
        undecided=difference.undecided,
        pending_bytes=one.pending_bytes,
        uncompared_bytes=one.uncompared_bytes,
        tensors=[_change(change) for change in difference.changes[:limit]],
    )


def _change(change: TensorChange) -> TensorChangeView:
    return TensorChangeView(list(change.kinds), _tensor(change.before), _tensor(change.after))


def _tensor(tensor: Tensor | None) -> TensorView | None:
    if tensor is None:
        return None
    return TensorView(tensor.name, tensor.dtype, list(tensor.shape), tensor.bytes)
