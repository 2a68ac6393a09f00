"""What the objects of a push are: complete (invariant I2), of the right type, and what tags point to."""

from collections.abc import Sequence
from dataclasses import dataclass

from core.together import together
from gitserver.listings import list_new
from gitserver.process import GitFailed, GitRunner
from gitserver.quarantine import Quarantine
from gitserver.snapshots import CacheUnavailable
from gitserver.updates import RefUpdate

# A push with more broken refs than this is refused whole instead of ref by ref.
_BLAME_AT_MOST = 100


@dataclass(frozen=True, slots=True)
class Inspection:
    """`refused` is `{ref name: reason}`, `peeled` is `{oid of an annotated tag: oid behind it}`."""

    refused: dict[str, str]
    peeled: dict[str, str]


async def inspect(git: GitRunner, quarantine: Quarantine, updates: Sequence[RefUpdate]) -> Inspection:
    """Checks that everything the new values reach is stored, and that branches name commits.

    Cost follows the push, not the repository: what existing refs reach is not walked again. What the updates
    that pass add is then listed in `quarantine.listing`.

    Raises:
        Unavailable: the server could not tell.
    """
    wanted = [one for one in updates if not one.deletes]
    refused: dict[str, str] = {}
    complete, (types, peeled) = await together(
        list_new(git, quarantine, wanted), _types(git, quarantine, sorted({one.new for one in wanted}))
    )
    if not complete:
        broken = "missing necessary objects"
        if len(wanted) > _BLAME_AT_MOST:
            refused = {one.name: broken for one in wanted}
        else:
            refused = {one.name: broken for one in wanted if not await list_new(git, quarantine, [one])}
    sound = [one for one in wanted if one.name not in refused]
    for one in sound:
        if one.name.startswith("refs/heads/") and types[one.new] != "commit":
            refused[one.name] = f"a branch must name a commit, not a {types[one.new]}"
    if refused:
        await list_new(git, quarantine, [one for one in sound if one.name not in refused])
    return Inspection(refused, peeled)


async def _types(
    git: GitRunner, quarantine: Quarantine, oids: Sequence[str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Of those that are there; what git says of the others is no type of an object."""
    if not oids:
        return {}, {}
    environment = git.environment(extra=quarantine.environment())
    asked = "".join(f"{oid}\n{oid}^{{}}\n" for oid in oids)
    try:
        out = await git.run(["cat-file", "--batch-check"], data=asked.encode(), environment=environment)
    except GitFailed as error:
        raise CacheUnavailable(f"the objects cannot be read: {error.reason}") from error
    lines = out.decode().splitlines()
    types, peeled = {}, {}
    for oid, itself, behind in zip(oids, lines[::2], lines[1::2], strict=True):
        types[oid] = itself.split()[1]
        if types[oid] == "tag":
            peeled[oid] = behind.split()[0]
    return types, peeled
