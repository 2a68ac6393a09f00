"""The gates: what pushes of models must not contain, asked before they are accepted.

Each gate is a setting: off, warn, refuse. Gates see what a push adds (new blobs, and what differs at its new
tips), and nothing else, so a push is never refused for what was there before.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Final, Protocol

from core.access import Actor, Permission, authorize_again
from core.database import Database
from core.errors import PermissionDenied, RepositoryNotFound, Unavailable
from core.models import Repository
from core.repositories import RepositoryInfo
from core.settings import GatesSettings, Level
from gitserver.glance import Clearing
from gitserver.listings import adds
from gitserver.policy import ProposedPush, guilty
from gitserver.process import GitRunner
from gitserver.updates import RefUpdate
from hooks.errors import ContentUnavailable
from hooks.formats.source import SourceUnreadable
from hooks.gates.big_files import BigFiles
from hooks.gates.configs import Contradictions
from hooks.gates.model_files import Damaged
from hooks.gates.new_blobs import MAX_READ_BYTES
from hooks.gates.pickles import Pickles
from hooks.gates.problem import Problem
from hooks.gates.secret_gate import Secrets
from hooks.gates.secret_search import has_no_signs
from hooks.gates.shards import MissingShards
from hooks.gates.telling import Telling, text_of
from hooks.gates.view import GateView, open_view
from hooks.parsing import Parsing
from hooks.trees import Trees

ALLOW: Final = "gate.allow"

_NOTED: Final = 100
_NAME: Final = 40
_WHO: Final = {
    "nobody": "is for nobody on this server",
    "admin": "is for administrators of this repository",
    "write": "is for those who may write to this repository",
}
_NEEDED: Final = {"admin": Permission.ADMIN, "write": Permission.WRITE}


class Gate(Protocol):
    """One thing to look for. Whoever finds nothing wrong returns nothing."""

    @property
    def code(self) -> str:
        """Its key in `[gates]`, and its name in `gate.allow`."""
        ...

    async def findings(self, view: GateView) -> list[Problem]:
        """What is wrong with the push; it must not change anything.

        Raises:
            SourceUnreadable, Unavailable: it cannot be told just now.
        """
        ...


GATES: Final[tuple[Gate, ...]] = (
    MissingShards(),
    Damaged("safetensors"),
    Damaged("gguf"),
    Contradictions(),
    Pickles(),
    Secrets(),
    BigFiles(),
)


class Gates:
    """Runs all gates on a push, or on a commit over the API.

    Whom `[gates] override` allows lets one through with `git push -o gate.allow=NAME`, which leaves a trace
    in the audit log.
    """

    def __init__(
        self, database: Database, git: GitRunner, trees: Trees, parsing: Parsing, settings: GatesSettings
    ) -> None:
        self._database = database
        self._git = git
        self._trees = trees
        self._parsing = parsing
        self._settings = settings
        levels: dict[str, Level] = {gate.code: getattr(settings, gate.code) for gate in GATES}
        self._gates = [(gate, levels[gate.code]) for gate in GATES if levels[gate.code] != "off"]
        self._refuses = "refuse" in levels.values()

    @property
    def clearing(self) -> Clearing | None:
        """What clears texts of secrets while their pack comes in; None where nobody looks for any."""
        if self._settings.secret == "off":  # noqa: S105 - a level
            return None
        return Clearing(MAX_READ_BYTES, has_no_signs)

    async def before_pack(
        self, repository: RepositoryInfo, actor: Actor, updates: Sequence[RefUpdate]
    ) -> Mapping[str, str]:
        """Refuses nothing: gates look at objects."""
        return {}

    async def check(self, push: ProposedPush) -> Mapping[str, str]:
        """Refuses the updates that bring what a gate refuses, and says what it is and how to mend it.

        Raises:
            Unavailable: a gate that refuses could not look; nothing passes that it has not seen.
        """
        if not self._gates or all(one.deletes for one in push.updates):
            return {}
        telling = Telling()
        try:
            refused = await self._ask(push, telling)
        except Unavailable as error:
            if self._refuses:
                raise
            telling.note(f"the gates could not look just now: {error.message}")
            refused = []
        for line in telling.lines():
            push.say(line)
        return await self._blame(push, refused) if refused else {}

    async def _ask(self, push: ProposedPush, telling: Telling) -> list[Problem]:
        """What the gates refuse and nobody overrides."""
        allowed = _allowed(push, telling)
        refused: list[Problem] = []
        async with open_view(push, self._settings, self._git, self._trees, self._parsing) as view:
            if view.tips_cut:
                telling.note(f"only the trees of {len(view.tips)} new tips were looked at")
            for gate, level in self._gates:
                try:
                    problems = await gate.findings(view)
                except (SourceUnreadable, Unavailable) as error:
                    if level == "refuse":
                        raise ContentUnavailable(
                            f"the gate {gate.code} cannot look: {error}; try again"
                        ) from error
                    telling.note(f"the gate {gate.code} could not look just now: {error}")
                    continue
                hard = [one for one in problems if level == "refuse" and not one.mild]
                telling.warn([one for one in problems if level == "warn" or one.mild])
                if hard and not (
                    gate.code in allowed and await self._overrides(push, gate.code, hard, telling)
                ):
                    telling.refuse(hard, self._how_to_override(gate.code))
                    refused += hard
        return refused

    async def _overrides(
        self, push: ProposedPush, code: str, problems: Sequence[Problem], telling: Telling
    ) -> bool:
        if not await self._may_override(push):
            telling.note(f"{ALLOW} {_WHO[self._settings.override]}")
            return False
        paths = list(dict.fromkeys(one.path for one in problems))
        push.override(f"gate.{code}", count=len(problems), paths=paths[:_NOTED])
        nouns = "problem is" if len(problems) == 1 else "problems are"
        telling.note(f"{ALLOW}={code}: {len(problems)} {nouns} let through")
        telling.warn(problems)
        return True

    async def _may_override(self, push: ProposedPush) -> bool:
        needed = _NEEDED.get(self._settings.override)
        if needed is None:
            return False
        async with self._database.read() as session:
            repository = await session.get(Repository, push.repository.id)
            if repository is None:
                raise RepositoryNotFound("no such repository")
            try:
                await authorize_again(session, push.actor, repository, needed)
            except PermissionDenied:
                return False
        return True

    def _how_to_override(self, code: str) -> str:
        if self._settings.override == "nobody":
            return ""
        return f"`git push -o {ALLOW}={code}` lets it through; it {_WHO[self._settings.override]}"

    async def _blame(self, push: ProposedPush, problems: Sequence[Problem]) -> Mapping[str, str]:
        """A reason for each update that brings one of the problems."""
        updates = [one for one in push.updates if not one.deletes]
        if len(updates) == 1:
            return {updates[0].name: _reason(problems)}
        reasons = {}
        for update in updates:
            of_tip = [one for one in problems if update.name in one.refs]
            if of_tip:
                reasons[update.name] = _reason(of_tip)
        blobs = frozenset(one.blob.encode() for one in problems if one.blob and not one.refs)
        if blobs or not reasons:

            async def brings_one(update: RefUpdate) -> bool:
                return update.name in reasons or await adds(self._git, push.quarantine, update, blobs)

            brought = [one for one in problems if not one.refs] or problems
            for update in await guilty(updates, brings_one):
                reasons.setdefault(update.name, _reason(brought))
        return reasons


def _allowed(push: ProposedPush, telling: Telling) -> Collection[str]:
    """The gates that the push options name."""
    known = [gate.code for gate in GATES]
    names: set[str] = set()
    for option in push.options:
        key, _, value = option.partition("=")
        if key == ALLOW:
            names.update(name.strip() for name in value.split(","))
    for name in sorted(names.difference(known)):
        telling.note(f"{ALLOW}={name[:_NAME]}: there is no such gate, but there are {', '.join(known)}")
    return names


def _reason(problems: Sequence[Problem]) -> str:
    more = len(problems) - 1
    text = text_of(problems[0])
    return f"{text} (and {more} more problem{'s' if more > 1 else ''})" if more else text
