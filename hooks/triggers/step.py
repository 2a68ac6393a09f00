"""The step "triggers" of the post-receive pipeline: which rules a push fires."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from core.database import Database
from core.errors import RevisionNotFound
from gitserver.queries import TooExpensive
from hooks.formats.parsed import Severity
from hooks.received import ReceivedPush, Report
from hooks.trees import Trees
from hooks.triggers.conditions import holds
from hooks.triggers.effort import Effort, TooMuchEffort
from hooks.triggers.firing import Fired, Match, Rule, fire
from hooks.triggers.matching import PatternLists
from hooks.triggers.options import TriggerOptions
from hooks.triggers.origin import Origin, find_origin
from hooks.triggers.rules import RuleInfo, rules_of
from hooks.triggers.spec import When
from hooks.triggers.tips import Tip, Tips, moved
from hooks.version import Version
from hooks.versions import Versions

# A push of more branches and tags is a copy of a repository, not work that somebody wants to train on.
MAX_TIPS = 20
_NO_CONDITIONS = When()


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a push is judged by; `effort` is for names and conditions, `path_effort` for what changed."""

    push: ReceivedPush
    options: TriggerOptions
    origin: Origin
    report: Report
    effort: Effort = field(default_factory=Effort)
    path_effort: Effort = field(default_factory=Effort)


class Triggers:
    """A `hooks.received.PostReceiveStep`: fires rules of the files at new tips, and those made over REST."""

    name = "triggers"

    def __init__(self, database: Database, tips: Tips, trees: Trees, versions: Versions) -> None:
        self._database = database
        self._tips = tips
        self._trees = trees
        self._versions = versions

    async def run(self, push: ReceivedPush, report: Report) -> None:
        """Fires what is to fire. Idempotent: a request is made once for each push, rule and ref."""
        updates = list(moved(push.updates))
        options = TriggerOptions.of(push.options)
        if not updates:
            return
        if options.skip:
            report.say("no rule fires: skipped with -o skip")
            return
        if len(options.answers) > 1:
            report.say("no rule fires: a push answers one request, and -o run.of names several")
            return
        answers = options.answers[0] if options.answers else None
        async with self._database.read() as session:
            made = list(await rules_of(session, push.repository.id))
            origin = await find_origin(session, answers, by_run=push.by_run)
        if origin is None:
            report.say(f"no rule fires: there is no request {answers}, which -o run.of names")
            return
        if len(updates) > MAX_TIPS:
            default = f"refs/heads/{push.repository.default_branch}"
            updates.sort(key=lambda one: one.name != default)
            report.say(f"rules are tried on the first {MAX_TIPS} of {len(updates)} branches and tags only")
        tips = await self._tips.read(push.repository.id, updates[:MAX_TIPS])
        _tell_of_problems(tips, report)
        asked = _Asked(push, options, origin, report)
        matches: list[Match] = []
        names: set[str] = set()
        for tip in tips:
            rules = _rules(tip, made)
            names |= rules.keys()
            try:
                matches += await self._matches(asked, tip, rules)
            except TooMuchEffort:
                report.say(f"no rule fires for {tip.name}: their patterns take too long to be tried")
        _tell_of_unknown(asked, names, {rule.spec.name for rule in made if not rule.enabled})
        if matches:
            for fired in await fire(self._database, push, origin, matches):
                _tell_of_firing(fired, several=len(tips) > 1, report=report)

    async def _matches(self, asked: _Asked, tip: Tip, rules: Mapping[str, Rule]) -> list[Match]:
        """The rules that fire for a tip."""
        forced = {name for name in asked.options.run if name in rules}
        about = await asyncio.to_thread(_about, rules, forced, asked, tip)
        refused = _refused(asked, about)
        for name, reason in refused.items():
            asked.report.say(f'"{name}" does not fire: {reason}')
        allowed = [rule for rule in about if rule.spec.name not in refused]
        changed = await self._with_changes(
            asked, tip, [one for one in allowed if one.spec.name not in forced]
        )
        chosen = [one for one in allowed if one.spec.name in forced or one.spec.name in changed]
        if not chosen:
            return []
        try:
            version = await self._versions.look(asked.push.repository.id, tip.commit)
        except RevisionNotFound:  # the ref moved on, and the commit is gone
            return []
        except TooExpensive:
            asked.report.say(f"the files of {tip.name} cannot be listed: no condition on them is fulfilled")
            return [Match(rule, tip, {}) for rule in chosen if _is_unconditional(rule, forced)]
        metadata = msgspec.to_builtins(version.summary)
        fulfilled = await asyncio.to_thread(_fulfilled, chosen, forced, asked, version)
        return [Match(rule, tip, metadata) for rule in fulfilled]

    async def _with_changes(self, asked: _Asked, tip: Tip, rules: Sequence[Rule]) -> set[str]:
        """The names of those rules whose paths changed, or that do not ask for any."""
        names = {rule.spec.name for rule in rules}
        limited = [rule for rule in rules if rule.spec.on.paths is not None]
        if not limited:
            return names
        try:
            changes = await self._trees.changed(asked.push.repository.id, tip.update.old, tip.commit)
        except (RevisionNotFound, TooExpensive):
            asked.report.say(
                f"what changed in {tip.name} cannot be told: every path is taken to have changed"
            )
            return names
        lists = [rule.spec.on.paths or () for rule in limited]
        patterns = [pattern for one in lists for pattern in one]
        if changes.cut or not asked.path_effort.affords(patterns, changes.paths):
            asked.report.say(f"too much changed in {tip.name}: every path is taken to have changed")
            return names
        chosen = await asyncio.to_thread(_chosen, lists, changes.paths)
        return names - {rule.spec.name for rule, fits in zip(limited, chosen, strict=True) if not fits}


def _rules(tip: Tip, made: Iterable[RuleInfo]) -> dict[str, Rule]:
    """The rules that count at a tip, by name: one made over REST takes the place of one in the file."""
    rules = {spec.name: Rule(spec, "file") for spec in tip.file.rules}
    for rule in made:
        rules.pop(rule.spec.name, None)
        if rule.enabled:
            rules[rule.spec.name] = Rule(rule.spec, "rest")
    return rules


def _about(rules: Mapping[str, Rule], forced: set[str], asked: _Asked, tip: Tip) -> list[Rule]:
    """The rules that name the branch or tag, or that whoever pushed names. Raises `TooMuchEffort`."""
    default = asked.push.repository.default_branch
    return [
        rule for name, rule in rules.items() if name in forced or _names(rule, tip, default, asked.effort)
    ]


def _names(rule: Rule, tip: Tip, default_branch: str, effort: Effort) -> bool:
    on = rule.spec.on
    if on.branches is None and on.tags is None:
        return tip.branch == default_branch
    name, patterns = (tip.tag, on.tags) if tip.branch is None else (tip.branch, on.branches)
    if name is None or not patterns:
        return False
    effort.spend(patterns, [name])
    return PatternLists([patterns], paths=False).chosen([name])[0]


def _chosen(lists: Iterable[Sequence[str]], paths: Iterable[str]) -> list[bool]:
    return PatternLists(lists, paths=True).chosen(paths)


def _fulfilled(rules: Iterable[Rule], forced: set[str], asked: _Asked, version: Version) -> list[Rule]:
    """The rules whose conditions are. Raises `TooMuchEffort`."""
    has_errors = any(finding.severity is Severity.ERROR for finding in version.findings)
    return [
        rule
        for rule in rules
        if _is_unconditional(rule, forced)
        or holds(rule.spec.when, version.summary, has_errors=has_errors, effort=asked.effort)
    ]


def _is_unconditional(rule: Rule, forced: set[str]) -> bool:
    return rule.spec.name in forced or rule.spec.when == _NO_CONDITIONS


def _refused(asked: _Asked, rules: Iterable[Rule]) -> dict[str, str]:
    """Why rules do not fire for a push of a run, by their names."""
    reasons = {rule.spec.name: asked.origin.refusal(asked.push.repository.id, rule.spec) for rule in rules}
    return {name: reason for name, reason in reasons.items() if reason is not None}


def _tell_of_problems(tips: Iterable[Tip], report: Report) -> None:
    """What is wrong with files, once for each."""
    for tip in {tip.blob: tip for tip in tips}.values():
        for problem in tip.file.problems:
            report.say(str(problem))
        if tip.file.problems:
            report.say(f"no rule of this file fires until it is mended ({tip.name})")


def _tell_of_unknown(asked: _Asked, known: set[str], disabled: set[str]) -> None:
    for name in asked.options.run:
        if name in disabled:
            asked.report.say(f"-o run={name}: this rule is disabled")
        elif name not in known:
            names = ", ".join(sorted(known)) or "none"
            asked.report.say(f"-o run={name}: there is no such rule here; there are: {names}")


def _tell_of_firing(fired: Fired, *, several: bool, report: Report) -> None:
    spec, tip = fired.match.rule.spec, fired.match.tip
    where = f" for {tip.name}" if several else ""
    if fired.refusal is not None:
        report.say(f'"{spec.name}" does not fire{where}: {fired.refusal}')
    else:
        report.say(f'{spec.run} "{spec.name}" requested{where} ({fired.request})')
